-- Who is billed, and which keys speak for them. A customer is suspended while any cause of it stands.

CREATE TABLE customer (
    tenant_id              text NOT NULL REFERENCES tenant,
    customer_id            text NOT NULL,
    name                   text NOT NULL,
    time_zone              text NOT NULL DEFAULT 'UTC',
    operator_suspended_at  timestamptz,
    dunning_suspended_at   timestamptz,
    status                 text NOT NULL GENERATED ALWAYS AS (
        CASE WHEN operator_suspended_at IS NULL AND dunning_suspended_at IS NULL THEN 'active' ELSE 'suspended' END) STORED,
    collection             text NOT NULL DEFAULT 'offline' CHECK (collection IN ('stripe', 'offline')),
    payment_terms_days     integer NOT NULL DEFAULT 30 CHECK (payment_terms_days BETWEEN 0 AND 365),
    stripe_customer        text NOT NULL DEFAULT '',
    stripe_payment_method  text NOT NULL DEFAULT '',
    shard                  integer NOT NULL CHECK (shard BETWEEN 0 AND 1023),
    snapshot_version       bigint NOT NULL DEFAULT 0,
    snapshot_stale_at      timestamptz,
    created_at             timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, customer_id),
    CONSTRAINT "a customer id is a code" CHECK (customer_id ~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$'),
    CONSTRAINT "stripe collects from a known payment method"
        CHECK (collection <> 'stripe' OR (stripe_customer <> '' AND stripe_payment_method <> ''))
);
-- Versions come from a sequence, because a number that was taken by a crash must never be given to other content.
CREATE SEQUENCE snapshot_version;
CREATE INDEX customer_by_shard ON customer (shard);
CREATE INDEX customer_by_staleness ON customer (snapshot_stale_at) WHERE snapshot_stale_at IS NOT NULL;

CREATE TABLE api_key (
    digest       text PRIMARY KEY,
    key_id       text NOT NULL,
    tenant_id    text NOT NULL,
    customer_id  text NOT NULL,
    label        text NOT NULL DEFAULT '',
    hint         text NOT NULL,
    path         text[] NOT NULL DEFAULT '{}',
    created_at   timestamptz NOT NULL,
    revoked_at   timestamptz,
    UNIQUE (tenant_id, key_id),
    FOREIGN KEY (tenant_id, customer_id) REFERENCES customer
);
CREATE INDEX api_key_by_customer ON api_key (tenant_id, customer_id);
