-- Grants are born here and spent in Redis; every change of one comes back as a movement.

CREATE TABLE credit_grant (
    tenant_id      text NOT NULL,
    grant_id       text NOT NULL,
    customer_id    text NOT NULL,
    currency       text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    kind           text NOT NULL CHECK (kind IN ('paid', 'promotional')),
    amount_nanos   bigint NOT NULL,
    spent_nanos    bigint NOT NULL DEFAULT 0,
    lapsed_nanos   bigint NOT NULL DEFAULT 0,
    priority       integer NOT NULL DEFAULT 0 CHECK (priority BETWEEN 0 AND 255),
    effective_at   timestamptz NOT NULL,
    expires_at     timestamptz,
    payment_id     text,
    note           text NOT NULL DEFAULT '',
    created_at     timestamptz NOT NULL,
    applied_at     timestamptz,
    voided_at      timestamptz,
    lapse_tried_at timestamptz,
    ended_at       timestamptz,
    PRIMARY KEY (tenant_id, grant_id),
    FOREIGN KEY (tenant_id, customer_id) REFERENCES customer,
    CONSTRAINT "a grant is more than nothing and below 2^53" CHECK (amount_nanos BETWEEN 1 AND 9007199254740991),
    CONSTRAINT "a grant is never overspent" CHECK (spent_nanos >= 0 AND lapsed_nanos >= 0 AND spent_nanos + lapsed_nanos <= amount_nanos),
    CONSTRAINT "what is ended is used up" CHECK (ended_at IS NULL OR spent_nanos + lapsed_nanos = amount_nanos),
    CONSTRAINT "a grant takes effect before it expires" CHECK (expires_at IS NULL OR effective_at < expires_at)
);
CREATE INDEX credit_grant_by_customer ON credit_grant (tenant_id, customer_id, currency);
CREATE UNIQUE INDEX "a payment buys one grant" ON credit_grant (tenant_id, payment_id) WHERE payment_id IS NOT NULL;
CREATE INDEX credit_grant_by_expiry ON credit_grant (expires_at) WHERE expires_at IS NOT NULL AND ended_at IS NULL;

-- Append-only. The key is where the entry stood in its shard's stream, so that it can be written once only.
CREATE TABLE movement (
    shard        integer NOT NULL,
    stream_ms    bigint NOT NULL,
    stream_seq   bigint NOT NULL,
    part         integer NOT NULL,
    tenant_id    text NOT NULL,
    customer_id  text NOT NULL,
    grant_id     text NOT NULL,
    currency     text NOT NULL,
    kind         text NOT NULL CHECK (kind IN ('debit', 'settle', 'lapse')),
    nanos        bigint NOT NULL CHECK (nanos > 0),
    event_id     text NOT NULL,
    event_at     timestamptz NOT NULL,
    recorded_at  timestamptz NOT NULL,
    PRIMARY KEY (shard, stream_ms, stream_seq, part)
);
CREATE INDEX movement_by_grant ON movement (tenant_id, grant_id);
