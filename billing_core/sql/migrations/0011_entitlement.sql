-- What a customer may do apart from its plan, and how its means are shared out below it. Rows keep the words that were
-- taken; what is ended stays as it was. Whoever writes here locks the customer first, because a relay reads the parts of a
-- snapshot one after another.

CREATE EXTENSION IF NOT EXISTS btree_gist;

CREATE TABLE customer_entitlement (
    tenant_id       text NOT NULL,
    entitlement_id  text NOT NULL,
    customer_id     text NOT NULL,
    kind            text NOT NULL CHECK (kind IN ('override', 'trial')),
    feature_code    text NOT NULL,
    feature_kind    text NOT NULL CHECK (feature_kind IN ('switch', 'static', 'metered', 'gauge')),
    terms           jsonb NOT NULL,
    note            text NOT NULL DEFAULT '',
    effective_at    timestamptz NOT NULL,
    expires_at      timestamptz,
    created_at      timestamptz NOT NULL,
    ended_at        timestamptz,
    PRIMARY KEY (tenant_id, entitlement_id),
    FOREIGN KEY (tenant_id, customer_id) REFERENCES customer,
    FOREIGN KEY (tenant_id, feature_code) REFERENCES feature (tenant_id, code),
    CONSTRAINT "a trial has an end" CHECK (kind <> 'trial' OR expires_at IS NOT NULL),
    CONSTRAINT "an entitlement takes effect before it expires" CHECK (expires_at IS NULL OR effective_at < expires_at)
);
CREATE INDEX customer_entitlement_by_customer ON customer_entitlement (customer_id, tenant_id) WHERE ended_at IS NULL;

CREATE TABLE subscription_addon (
    tenant_id        text NOT NULL,
    taken_id         text NOT NULL,
    subscription_id  text NOT NULL,
    customer_id      text NOT NULL,
    addon_code       text NOT NULL,
    quantity         bigint NOT NULL CHECK (quantity BETWEEN 1 AND 1000000),
    terms            jsonb NOT NULL,
    effective_at     timestamptz NOT NULL,
    expires_at       timestamptz,
    created_at       timestamptz NOT NULL,
    ended_at         timestamptz,
    PRIMARY KEY (tenant_id, taken_id),
    FOREIGN KEY (tenant_id, subscription_id) REFERENCES subscription,
    FOREIGN KEY (tenant_id, customer_id) REFERENCES customer,
    CONSTRAINT "an add-on takes effect before it expires" CHECK (expires_at IS NULL OR effective_at < expires_at),
    CONSTRAINT "an add-on has one quantity at a time"
        EXCLUDE USING gist (subscription_id WITH =, tenant_id WITH =, addon_code WITH =, tstzrange(effective_at, expires_at) WITH &&)
        WHERE (ended_at IS NULL)
);
CREATE INDEX subscription_addon_by_customer ON subscription_addon (customer_id, tenant_id) WHERE ended_at IS NULL;

CREATE TABLE customer_budget (
    tenant_id    text NOT NULL,
    customer_id  text NOT NULL,
    document     jsonb NOT NULL,
    written_at   timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, customer_id),
    FOREIGN KEY (tenant_id, customer_id) REFERENCES customer
);
