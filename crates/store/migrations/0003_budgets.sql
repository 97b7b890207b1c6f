-- Budgets. A period is a query over days, never a counter that something has to reset.

ALTER TABLE organisations ADD COLUMN time_zone TEXT NOT NULL DEFAULT 'UTC'; -- IANA name
ALTER TABLE departments ADD COLUMN parent_id TEXT REFERENCES departments (id);
ALTER TABLE users ADD COLUMN lock_message TEXT; -- as in devices; a device that enrols for the user takes it over

-- What a scope's change tells is found by these, not by a walk over every device.
CREATE INDEX devices_of_department ON devices (organisation_id, department_id);
CREATE INDEX devices_of_user ON devices (organisation_id, user_id);

CREATE TABLE flags (
    organisation_id TEXT NOT NULL REFERENCES organisations (id),
    name TEXT NOT NULL, -- for example FF_BUDGET_HARD_CAPS
    value BIGINT NOT NULL, -- 0, 1
    PRIMARY KEY (organisation_id, name)
);

-- The ledger by day, booked in the transaction that stores the events: one row for the
-- organisation, one for each department up the tree, one for the user. A day is a civil day in the
-- organisation's time zone at the time of booking, in days since 1970-01-01.
CREATE TABLE spend_daily (
    organisation_id TEXT NOT NULL,
    scope TEXT NOT NULL, -- organisation, department, user
    scope_id TEXT NOT NULL,
    day BIGINT NOT NULL,
    tokens_low BIGINT NOT NULL,
    tokens_point BIGINT NOT NULL,
    tokens_high BIGINT NOT NULL,
    micros_low BIGINT NOT NULL,
    micros_point BIGINT NOT NULL,
    micros_high BIGINT NOT NULL,
    tokens_unpriced BIGINT NOT NULL, -- of tokens_point
    PRIMARY KEY (organisation_id, scope, scope_id, day)
);

-- What was spent before there were budgets. Here every time zone is UTC still and no department has a
-- parent. Whose a device was is not known any more: its spend counts for the user that it has now.
-- Added as doubles, exact up to 2^53, so that no claim of a device can overflow; a day's limit is 2^50.
INSERT INTO spend_daily (organisation_id, scope, scope_id, day, tokens_low, tokens_point, tokens_high,
    micros_low, micros_point, micros_high, tokens_unpriced)
WITH counted (organisation_id, scope, scope_id, device_id, department_id) AS (
    SELECT organisation_id, 'organisation', organisation_id, id, CAST(NULL AS TEXT) FROM devices
    UNION ALL SELECT organisation_id, 'user', user_id, id, NULL FROM devices WHERE user_id IS NOT NULL
    UNION ALL SELECT DISTINCT organisation_id, 'department', department_id, device_id, department_id
        FROM usage_hourly WHERE department_id <> ''
), sums (organisation_id, scope, scope_id, day, tokens_low, tokens_point, tokens_high,
    micros_low, micros_point, micros_high, tokens_unpriced) AS (
    SELECT c.organisation_id, c.scope, c.scope_id, h.hour / 24,
        SUM(CAST(h.tokens_in_low AS DOUBLE PRECISION) + h.tokens_out_low),
        SUM(CAST(h.tokens_in_point AS DOUBLE PRECISION) + h.tokens_out_point),
        SUM(CAST(h.tokens_in_high AS DOUBLE PRECISION) + h.tokens_out_high),
        SUM(CAST(h.cost_low_micros AS DOUBLE PRECISION)),
        SUM(CAST(h.cost_point_micros AS DOUBLE PRECISION)),
        SUM(CAST(h.cost_high_micros AS DOUBLE PRECISION)),
        SUM(CAST(h.tokens_unpriced AS DOUBLE PRECISION))
    FROM counted c
    INNER JOIN usage_hourly h ON h.organisation_id = c.organisation_id AND h.device_id = c.device_id
        AND (c.department_id IS NULL OR h.department_id = c.department_id)
    GROUP BY c.organisation_id, c.scope, c.scope_id, h.hour / 24
)
SELECT organisation_id, scope, scope_id, day,
    CAST(CASE WHEN tokens_low > 1125899906842624 THEN 1125899906842624 ELSE tokens_low END AS BIGINT),
    CAST(CASE WHEN tokens_point > 1125899906842624 THEN 1125899906842624 ELSE tokens_point END AS BIGINT),
    CAST(CASE WHEN tokens_high > 1125899906842624 THEN 1125899906842624 ELSE tokens_high END AS BIGINT),
    CAST(CASE WHEN micros_low > 1125899906842624 THEN 1125899906842624 ELSE micros_low END AS BIGINT),
    CAST(CASE WHEN micros_point > 1125899906842624 THEN 1125899906842624 ELSE micros_point END AS BIGINT),
    CAST(CASE WHEN micros_high > 1125899906842624 THEN 1125899906842624 ELSE micros_high END AS BIGINT),
    CAST(CASE WHEN tokens_unpriced > 1125899906842624 THEN 1125899906842624 ELSE tokens_unpriced END AS BIGINT)
FROM sums;

CREATE TABLE budgets (
    id TEXT PRIMARY KEY,
    organisation_id TEXT NOT NULL REFERENCES organisations (id),
    name TEXT NOT NULL,
    scope TEXT NOT NULL, -- organisation, department, user
    scope_id TEXT NOT NULL,
    unit TEXT NOT NULL, -- tokens, micros
    amount BIGINT NOT NULL, -- a period's, in that unit
    period TEXT NOT NULL, -- daily, weekly, monthly, quarterly, annual
    hard BIGINT NOT NULL, -- 0, 1
    thresholds TEXT NOT NULL, -- percent, ascending, joined by commas
    rollover_limit BIGINT NOT NULL, -- most that the period before may leave to the next; 0: none
    message TEXT NOT NULL, -- what to tell the user when it blocks
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    UNIQUE (organisation_id, name)
);
CREATE INDEX budgets_of_scope ON budgets (organisation_id, scope, scope_id);

-- What was passed in which period: written once each, in the transaction that books the event.
CREATE TABLE budget_alerts (
    budget_id TEXT NOT NULL REFERENCES budgets (id),
    period_start BIGINT NOT NULL, -- day
    threshold BIGINT NOT NULL, -- percent of the point estimate; 0: the cap, by the lower bound
    at BIGINT NOT NULL,
    spent BIGINT NOT NULL,
    budget_limit BIGINT NOT NULL,
    PRIMARY KEY (budget_id, period_start, threshold)
);

-- Asked for by a device's user, granted by an administrator, over at their end.
CREATE TABLE exemptions (
    id TEXT PRIMARY KEY,
    organisation_id TEXT NOT NULL REFERENCES organisations (id),
    budget_id TEXT NOT NULL REFERENCES budgets (id),
    device_id TEXT NOT NULL REFERENCES devices (id), -- who asked
    user_id TEXT REFERENCES users (id), -- whose devices it covers; null: the one device
    reason TEXT NOT NULL,
    state TEXT NOT NULL, -- requested, granted, denied, withdrawn
    requested_at BIGINT NOT NULL,
    decided_at BIGINT,
    decided_by TEXT,
    until BIGINT
);
CREATE INDEX exemptions_of_device ON exemptions (device_id, state);
CREATE INDEX exemptions_waiting ON exemptions (organisation_id, state, requested_at);
