-- Who the workspace belongs to, and who may operate it.

CREATE TABLE tenant (
    tenant_id        text PRIMARY KEY,
    name             text NOT NULL,
    sandbox          boolean NOT NULL DEFAULT false,
    clock_offset_ms  bigint NOT NULL DEFAULT 0,
    created_at       timestamptz NOT NULL,
    CONSTRAINT "a tenant id is a code" CHECK (tenant_id ~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$'),
    CONSTRAINT "only a sandbox has a clock of its own" CHECK (sandbox OR clock_offset_ms = 0)
);

CREATE TABLE operator_token (
    digest      text PRIMARY KEY,
    token_id    text NOT NULL,
    tenant_id   text NOT NULL REFERENCES tenant,
    label       text NOT NULL,
    hint        text NOT NULL,
    created_at  timestamptz NOT NULL,
    revoked_at  timestamptz,
    UNIQUE (tenant_id, token_id)
);

-- A POST that carries an Idempotency-Key is answered once; a retry reads the answer here. Status 0: still being
-- worked on. What the root token did has the tenant ''. No secret is kept: its place in the body is a zero byte.
CREATE TABLE idempotent_answer (
    tenant_id   text NOT NULL,
    key         text NOT NULL,
    route       text NOT NULL,
    digest      text NOT NULL,
    status      integer NOT NULL,
    body        bytea NOT NULL,
    created_at  timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, key)
);
CREATE INDEX idempotent_answer_by_age ON idempotent_answer (created_at);
