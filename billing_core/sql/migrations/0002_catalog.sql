-- What is sold. A plan's content is a document, versioned whole: a version never changes.

CREATE TABLE meter (
    tenant_id    text NOT NULL REFERENCES tenant,
    code         text NOT NULL,
    event        text NOT NULL,
    aggregation  text NOT NULL CHECK (aggregation IN ('count', 'sum', 'max', 'unique', 'latest')),
    field        text NOT NULL DEFAULT '',
    scale        integer NOT NULL DEFAULT 0 CHECK (scale BETWEEN 0 AND 12),
    group_by     text[] NOT NULL DEFAULT '{}',
    created_at   timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, code),
    CONSTRAINT "all but a count read a field" CHECK (aggregation = 'count' OR field <> '')
);

CREATE TABLE feature (
    tenant_id   text NOT NULL REFERENCES tenant,
    code        text NOT NULL,
    kind        text NOT NULL CHECK (kind IN ('switch', 'static', 'metered', 'gauge')),
    meter_code  text,
    created_at  timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, code),
    FOREIGN KEY (tenant_id, meter_code) REFERENCES meter (tenant_id, code),
    CONSTRAINT "what is counted has a meter" CHECK ((kind IN ('metered', 'gauge')) = (meter_code IS NOT NULL))
);

-- What is offered now: the document as it was last applied. Plans that it does not name are sold to nobody new.
CREATE TABLE catalog (
    tenant_id   text PRIMARY KEY REFERENCES tenant,
    document    jsonb NOT NULL,
    applied_at  timestamptz NOT NULL
);

CREATE TABLE plan_version (
    tenant_id   text NOT NULL REFERENCES tenant,
    code        text NOT NULL,
    version     integer NOT NULL CHECK (version > 0),
    digest      text NOT NULL,
    document    jsonb NOT NULL,
    created_at  timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, code, version)
);
