-- One bill, its lines, and the gapless numbers that bills carry.

CREATE TABLE invoice_number (
    tenant_id  text PRIMARY KEY REFERENCES tenant,
    last       bigint NOT NULL DEFAULT 0
);

CREATE TABLE invoice (
    tenant_id        text NOT NULL,
    invoice_id       text NOT NULL,
    customer_id      text NOT NULL,
    subscription_id  text NOT NULL,
    number           text,
    currency         text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    state            text NOT NULL CHECK (state IN ('draft', 'finalized', 'paid', 'void')),
    reason           text NOT NULL CHECK (reason IN ('activation', 'period')),
    time_zone        text NOT NULL,
    period_start_at  timestamptz NOT NULL,
    period_end_at    timestamptz NOT NULL,
    total_minor      bigint NOT NULL CHECK (total_minor >= 0),
    prepaid_minor    bigint NOT NULL DEFAULT 0,
    due_minor        bigint NOT NULL CHECK (due_minor >= 0),
    paid_minor       bigint NOT NULL DEFAULT 0,
    due_at           timestamptz,
    created_at       timestamptz NOT NULL,
    finalized_at     timestamptz,
    paid_at          timestamptz,
    voided_at        timestamptz,
    PRIMARY KEY (tenant_id, invoice_id),
    FOREIGN KEY (tenant_id, customer_id) REFERENCES customer,
    FOREIGN KEY (tenant_id, subscription_id) REFERENCES subscription,
    CONSTRAINT "what is not a draft has a number" CHECK (state = 'draft' OR state = 'void' OR (number IS NOT NULL AND finalized_at IS NOT NULL)),
    CONSTRAINT "due is the total less what was prepaid" CHECK (due_minor = total_minor - prepaid_minor),
    CONSTRAINT "nobody pays more than is due" CHECK (paid_minor BETWEEN 0 AND due_minor),
    CONSTRAINT "what is paid is paid in full" CHECK (state <> 'paid' OR (paid_minor = due_minor AND paid_at IS NOT NULL)),
    UNIQUE (number, tenant_id)
);
CREATE UNIQUE INDEX "a period is billed once" ON invoice (subscription_id, tenant_id, period_end_at, reason) WHERE state <> 'void';
CREATE INDEX invoice_by_customer ON invoice (customer_id, tenant_id, created_at);
CREATE INDEX invoice_by_subscription ON invoice (subscription_id, tenant_id, period_start_at);
CREATE INDEX invoice_unpaid ON invoice (tenant_id, due_at) WHERE state = 'finalized';
CREATE INDEX invoice_by_state ON invoice (state) WHERE state IN ('draft', 'finalized');

CREATE TABLE invoice_line (
    tenant_id        text NOT NULL,
    invoice_id       text NOT NULL,
    line_no          integer NOT NULL CHECK (line_no > 0),
    kind             text NOT NULL CHECK (kind IN ('fee', 'usage', 'correction')),
    description      text NOT NULL,
    plan_code        text NOT NULL DEFAULT '',
    plan_version     integer NOT NULL DEFAULT 0,
    price_code       text NOT NULL DEFAULT '',
    meter_code       text NOT NULL DEFAULT '',
    group_key        jsonb NOT NULL DEFAULT '{}',
    service_start_at timestamptz NOT NULL,
    service_end_at   timestamptz NOT NULL,
    recorded_until   timestamptz,
    quantity         numeric NOT NULL,
    amount_minor     bigint NOT NULL,
    prepaid_minor    bigint NOT NULL DEFAULT 0,
    parts            jsonb NOT NULL DEFAULT '[]',
    event_count      bigint NOT NULL DEFAULT 0,
    unreadable_count bigint NOT NULL DEFAULT 0,
    event_digest     text NOT NULL DEFAULT '',
    wallet           text NOT NULL DEFAULT '',
    wallet_nanos     bigint NOT NULL DEFAULT 0,
    unpaid_nanos     bigint NOT NULL DEFAULT 0,
    earlier          jsonb,
    PRIMARY KEY (tenant_id, invoice_id, line_no),
    FOREIGN KEY (tenant_id, invoice_id) REFERENCES invoice,
    CONSTRAINT "a service takes time" CHECK (service_start_at < service_end_at),
    CONSTRAINT "a correction says what was billed before" CHECK ((kind = 'correction') = (earlier IS NOT NULL)),
    CONSTRAINT "only a correction gives back" CHECK (kind = 'correction' OR amount_minor >= prepaid_minor),
    CONSTRAINT "what another wallet paid is no money of this invoice"
        CHECK (wallet = '' AND wallet_nanos = 0 AND unpaid_nanos = 0 OR wallet <> '' AND amount_minor = 0 AND prepaid_minor = 0)
);

-- What came late: rows that were written after a period's cut but belong before its end. Blocks of punctual rows never
-- hold both, so a close finds the late ones without reading the month.
CREATE INDEX usage_event_by_lateness ON usage_event
    USING brin (recorded_at, event_at) WITH (pages_per_range = 16, autosummarize = on);
