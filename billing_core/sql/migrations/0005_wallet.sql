-- Grants are born here and spent in Redis; every change of one comes back as a movement. What all of a grant costs is
-- price_nanos of price_currency; `booked_nanos` is how much of it is in the books, kept where that is not the grant's own
-- amount. An overdraft's spent_nanos is what is drawn and not repaid; `lowered_nanos` is its limit where it was lowered.

CREATE TABLE credit_grant (
    tenant_id      text NOT NULL,
    grant_id       text NOT NULL,
    customer_id    text NOT NULL,
    currency       text NOT NULL CHECK (currency ~ '^[A-Z][A-Z0-9]{1,15}$'),
    kind           text NOT NULL CHECK (kind IN ('paid', 'promotional', 'overdraft')),
    amount_nanos   bigint NOT NULL,
    spent_nanos    bigint NOT NULL DEFAULT 0,
    lapsed_nanos   bigint NOT NULL DEFAULT 0,
    priority       integer NOT NULL DEFAULT 0 CHECK (priority BETWEEN 0 AND 255),
    effective_at   timestamptz NOT NULL,
    expires_at     timestamptz,
    features       text[] NOT NULL DEFAULT '{}',
    price_nanos    bigint,
    price_currency text CHECK (price_currency ~ '^[A-Z]{3}$'),
    booked_nanos   bigint NOT NULL DEFAULT 0,
    lowered_nanos  bigint,
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
    CONSTRAINT "a grant takes effect before it expires" CHECK (expires_at IS NULL OR effective_at < expires_at),
    CONSTRAINT "a gift costs nothing and all else has a price"
        CHECK ((kind = 'promotional') = (price_nanos IS NULL) AND (price_nanos IS NULL) = (price_currency IS NULL) AND price_nanos > 0),
    CONSTRAINT "a payment buys what is paid" CHECK (payment_id IS NULL OR kind = 'paid'),
    CONSTRAINT "only an overdraft is lowered" CHECK (lowered_nanos IS NULL OR (kind = 'overdraft' AND lowered_nanos BETWEEN 0 AND amount_nanos))
);
CREATE INDEX credit_grant_by_customer ON credit_grant (tenant_id, customer_id, currency);
CREATE UNIQUE INDEX "a payment buys one grant" ON credit_grant (tenant_id, payment_id) WHERE payment_id IS NOT NULL;
CREATE INDEX credit_grant_by_expiry ON credit_grant (tenant_id, expires_at) WHERE expires_at IS NOT NULL AND ended_at IS NULL;
CREATE INDEX credit_grant_void ON credit_grant (tenant_id) WHERE voided_at IS NOT NULL AND ended_at IS NULL;
CREATE INDEX credit_grant_lowered ON credit_grant (tenant_id) WHERE lowered_nanos IS NOT NULL AND ended_at IS NULL;

-- Append-only. The key is where the entry stood in its shard's stream, so that it can be written once only. A paid grant that
-- repays an overdraft moves as much out of itself as it moves back onto the overdraft, which is the one movement below zero.
CREATE TABLE movement (
    shard        integer NOT NULL,
    stream_ms    bigint NOT NULL,
    stream_seq   bigint NOT NULL,
    part         integer NOT NULL,
    tenant_id    text NOT NULL,
    customer_id  text NOT NULL,
    grant_id     text NOT NULL,
    currency     text NOT NULL,
    kind         text NOT NULL CHECK (kind IN ('debit', 'settle', 'lapse', 'repay')),
    nanos        bigint NOT NULL,
    event_id     text NOT NULL,
    event_at     timestamptz NOT NULL,
    recorded_at  timestamptz NOT NULL,
    PRIMARY KEY (shard, stream_ms, stream_seq, part),
    CONSTRAINT "only a repayment moves back" CHECK (nanos > 0 OR (kind = 'repay' AND nanos < 0))
);
CREATE INDEX movement_by_grant ON movement (tenant_id, grant_id);
