-- The books. A transfer is a set of signed entries that sum to zero per currency; nothing is ever changed.

CREATE TABLE ledger_transfer (
    tenant_id    text NOT NULL REFERENCES tenant,
    transfer_id  text NOT NULL,
    kind         text NOT NULL,
    source       text NOT NULL,
    booked_at    timestamptz NOT NULL,
    recorded_at  timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, transfer_id),
    CONSTRAINT "one cause books once" UNIQUE (source, kind, tenant_id)
);

CREATE TABLE ledger_entry (
    tenant_id    text NOT NULL,
    transfer_id  text NOT NULL,
    entry_no     integer NOT NULL CHECK (entry_no > 0),
    account      text NOT NULL CHECK (account IN ('cash', 'accounts_receivable', 'contract_liability', 'deferred_revenue',
                                                  'revenue_usage', 'revenue_fees', 'revenue_breakage')),
    customer_id  text NOT NULL,
    currency     text NOT NULL,
    nanos        bigint NOT NULL CHECK (nanos <> 0),
    PRIMARY KEY (tenant_id, transfer_id, entry_no),
    FOREIGN KEY (tenant_id, transfer_id) REFERENCES ledger_transfer
);
CREATE INDEX ledger_entry_by_account ON ledger_entry (tenant_id, account, currency, customer_id);

-- All entries of a transfer come in one statement, so books that balanced before it balance after it. Judged for all rows of
-- the statement together: a close books thousands.
CREATE FUNCTION check_transfers() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    uneven text := (SELECT min(transfer_id) FROM (
        SELECT transfer_id FROM fresh GROUP BY tenant_id, transfer_id, currency HAVING sum(nanos) <> 0) AS sums);
BEGIN
    IF uneven IS NOT NULL
    THEN RAISE EXCEPTION 'transfer % does not sum to zero', uneven USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER "a transfer sums to zero per currency" AFTER INSERT ON ledger_entry REFERENCING NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION check_transfers();

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER "entries are never changed" BEFORE UPDATE OR DELETE ON ledger_entry FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER "transfers are never changed" BEFORE UPDATE OR DELETE ON ledger_transfer FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER "movements are never changed" BEFORE UPDATE OR DELETE ON movement FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- What was billed ahead and becomes revenue day by day.
CREATE TABLE revenue_schedule (
    tenant_id         text NOT NULL,
    invoice_id        text NOT NULL,
    line_no           integer NOT NULL,
    customer_id       text NOT NULL,
    currency          text NOT NULL,
    time_zone         text NOT NULL,
    total_nanos       bigint NOT NULL CHECK (total_nanos > 0),
    recognized_nanos  bigint NOT NULL DEFAULT 0,
    days_recognized   integer NOT NULL DEFAULT 0 CHECK (days_recognized >= 0),
    start_at          timestamptz NOT NULL,
    end_at            timestamptz NOT NULL,
    due_at            timestamptz NOT NULL,
    state             text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'done', 'void')),
    PRIMARY KEY (tenant_id, invoice_id, line_no),
    FOREIGN KEY (tenant_id, invoice_id, line_no) REFERENCES invoice_line,
    CONSTRAINT "no more is recognized than was billed" CHECK (recognized_nanos BETWEEN 0 AND total_nanos),
    CONSTRAINT "what is done is recognized in full" CHECK (state <> 'done' OR recognized_nanos = total_nanos)
);
CREATE INDEX revenue_schedule_running ON revenue_schedule (due_at, tenant_id) WHERE state = 'running';
