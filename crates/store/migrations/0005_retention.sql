-- How long is kept what is not kept for good. Hourly and daily sums that have passed their time are
-- added up in one row of the same table, at the hour or day -1000000, which holds no account,
-- application, provider or time any more; so every sum over all time stays what it was.

CREATE TABLE retention (
    organisation_id TEXT PRIMARY KEY REFERENCES organisations (id),
    events_days BIGINT NOT NULL,
    usage_days BIGINT NOT NULL
);

-- What was taken from a device's events, so that the ledger can still be balanced.
CREATE TABLE pruned_events (
    device_id TEXT PRIMARY KEY REFERENCES devices (id),
    events BIGINT NOT NULL,
    last_sequence BIGINT NOT NULL,
    bookable BIGINT NOT NULL, -- of the events, those that the ledger booked
    bytes BIGINT NOT NULL, -- both directions
    exchanges BIGINT NOT NULL
);
