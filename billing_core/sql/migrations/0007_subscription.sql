-- Who is on what plan, and the periods that it is billed by.

CREATE TABLE subscription (
    tenant_id        text NOT NULL,
    subscription_id  text NOT NULL,
    customer_id      text NOT NULL,
    plan_code        text NOT NULL,
    plan_version     integer NOT NULL,
    state            text NOT NULL CHECK (state IN ('active', 'ended')),
    started_at       timestamptz NOT NULL,
    anchor_at        timestamptz NOT NULL,
    time_zone        text NOT NULL,
    cancel_at_end    boolean NOT NULL DEFAULT false,
    ended_at         timestamptz,
    created_at       timestamptz NOT NULL,
    -- A change of plan: in force for the gate from its instant on, and for bills once the period that ends there is closed.
    next_plan_code     text,
    next_plan_version  integer,
    next_anchor_at     timestamptz,
    next_at            timestamptz,
    changed_at         timestamptz,
    PRIMARY KEY (tenant_id, subscription_id),
    FOREIGN KEY (tenant_id, customer_id) REFERENCES customer,
    FOREIGN KEY (tenant_id, plan_code, plan_version) REFERENCES plan_version (tenant_id, code, version),
    FOREIGN KEY (tenant_id, next_plan_code, next_plan_version) REFERENCES plan_version (tenant_id, code, version),
    CONSTRAINT "only what ended has an end" CHECK ((state = 'ended') = (ended_at IS NOT NULL)),
    CONSTRAINT "a change says plan, version, anchor and instant"
        CHECK (num_nonnulls(next_plan_code, next_plan_version, next_anchor_at, next_at) IN (0, 4)),
    CONSTRAINT "what ends does not change" CHECK (next_at IS NULL OR (state = 'active' AND NOT cancel_at_end))
);
-- The column that tells rows apart stands first in every second index: on a table without statistics an index that begins
-- with the tenant looks as good as the primary key, and a foreign key's check would read all rows of the tenant.
CREATE UNIQUE INDEX "a customer is on one plan at a time" ON subscription (customer_id, tenant_id) WHERE state = 'active';

-- The periods of a subscription are a chain: one follows nothing, each other one begins where another ends, and no two begin or
-- end at one instant. So they never overlap and leave no time out. Plain keys hold that; an exclusion of ranges would hold less
-- and cost a close more than its other indexes together.
CREATE TABLE billing_period (
    tenant_id        text NOT NULL,
    subscription_id  text NOT NULL,
    customer_id      text NOT NULL,
    start_at         timestamptz NOT NULL,
    end_at           timestamptz NOT NULL,
    follows_at       timestamptz,
    plan_code        text NOT NULL,
    plan_version     integer NOT NULL,
    anchor_at        timestamptz NOT NULL,
    state            text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'closed')),
    closed_at        timestamptz,
    recorded_until   timestamptz,
    corrected_until  timestamptz,
    PRIMARY KEY (tenant_id, subscription_id, start_at),
    FOREIGN KEY (tenant_id, subscription_id) REFERENCES subscription,
    CONSTRAINT "a period ends after it starts" CHECK (start_at < end_at),
    CONSTRAINT "only what is closed is corrected, each time later" CHECK (corrected_until > recorded_until),
    CONSTRAINT "what is closed says when and up to where" CHECK ((state = 'closed') = (closed_at IS NOT NULL AND recorded_until IS NOT NULL)),
    CONSTRAINT "no two periods end at one instant" UNIQUE (subscription_id, tenant_id, end_at),
    CONSTRAINT "a period starts where the one that it follows ends" CHECK (follows_at = start_at),
    CONSTRAINT "a period follows one of its subscription" FOREIGN KEY (subscription_id, tenant_id, follows_at)
        REFERENCES billing_period (subscription_id, tenant_id, end_at)
);
CREATE UNIQUE INDEX "a subscription has one first period" ON billing_period (subscription_id, tenant_id) WHERE follows_at IS NULL;
CREATE UNIQUE INDEX "a subscription has one open period" ON billing_period (subscription_id, tenant_id) WHERE state = 'open';
CREATE INDEX billing_period_due ON billing_period (end_at, tenant_id) WHERE state = 'open';
CREATE INDEX subscription_by_customer ON subscription (customer_id, tenant_id, started_at);
