-- Collection: one row per attempt to move money, and what the processor told us of it.

CREATE TABLE payment (
    tenant_id         text NOT NULL,
    payment_id        text NOT NULL,
    customer_id       text NOT NULL,
    invoice_id        text,
    purpose           text NOT NULL CHECK (purpose IN ('invoice', 'top_up')),
    method            text NOT NULL CHECK (method IN ('stripe', 'ach', 'wire')),
    currency          text NOT NULL,
    amount_minor      bigint NOT NULL CHECK (amount_minor > 0),
    state             text NOT NULL CHECK (state IN ('pending', 'processing', 'succeeded', 'failed', 'canceled')),
    attempt           integer NOT NULL DEFAULT 1 CHECK (attempt > 0),
    processor_id      text NOT NULL DEFAULT '',
    reference         text NOT NULL DEFAULT '',
    request_key       text,
    failure_code      text NOT NULL DEFAULT '',
    top_up            jsonb,
    next_try_at       timestamptz,
    attempted_at      timestamptz,
    received_at       timestamptz,
    created_at        timestamptz NOT NULL,
    settled_at        timestamptz,
    PRIMARY KEY (tenant_id, payment_id),
    FOREIGN KEY (tenant_id, customer_id) REFERENCES customer,
    FOREIGN KEY (tenant_id, invoice_id) REFERENCES invoice,
    CONSTRAINT "a payment for an invoice names it" CHECK ((purpose = 'invoice') = (invoice_id IS NOT NULL)),
    CONSTRAINT "only a top-up says what to grant" CHECK ((purpose = 'top_up') = (top_up IS NOT NULL)),
    CONSTRAINT "what ended says when" CHECK ((state IN ('succeeded', 'failed', 'canceled')) = (settled_at IS NOT NULL))
);
CREATE UNIQUE INDEX "an invoice has one live payment" ON payment (invoice_id, tenant_id) WHERE state IN ('pending', 'processing', 'succeeded');
CREATE INDEX payment_due ON payment (next_try_at) WHERE state IN ('pending', 'processing');
CREATE UNIQUE INDEX "a request makes one payment" ON payment (request_key, tenant_id) WHERE request_key IS NOT NULL;
CREATE UNIQUE INDEX payment_by_processor ON payment (processor_id) WHERE processor_id <> '';

CREATE TABLE webhook_event (
    processor    text NOT NULL,
    event_id     text NOT NULL,
    kind         text NOT NULL,
    body         jsonb NOT NULL,
    received_at  timestamptz NOT NULL,
    PRIMARY KEY (processor, event_id)
);
