-- Portable SQL: the same text runs on SQLite and PostgreSQL. Times are Unix seconds or
-- minutes (BIGINT), identifiers are UUID texts, money is integer micro-dollars.

CREATE TABLE organisations (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    created_at BIGINT NOT NULL
);

CREATE TABLE departments (
    id TEXT PRIMARY KEY,
    organisation_id TEXT NOT NULL REFERENCES organisations (id),
    name TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    block_reason TEXT, -- as in devices; a device that enrols into the department takes it over
    block_message TEXT,
    block_providers TEXT,
    UNIQUE (organisation_id, name)
);

CREATE TABLE users (
    id TEXT PRIMARY KEY,
    organisation_id TEXT NOT NULL REFERENCES organisations (id),
    department_id TEXT REFERENCES departments (id),
    email TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (organisation_id, email)
);

CREATE TABLE devices (
    id TEXT PRIMARY KEY,
    organisation_id TEXT NOT NULL REFERENCES organisations (id),
    department_id TEXT REFERENCES departments (id),
    user_id TEXT REFERENCES users (id),
    hostname TEXT NOT NULL,
    platform TEXT NOT NULL,
    agent_version TEXT NOT NULL,
    state TEXT NOT NULL, -- enrolled, revoked
    enrolled_at BIGINT NOT NULL,
    last_seen_at BIGINT,
    acknowledged_sequence BIGINT NOT NULL, -- highest contiguous sequence stored
    directive_version BIGINT NOT NULL, -- grows at every change of what follows
    directive_applied BIGINT, -- the version that the device says it runs
    lock_message TEXT, -- a lock is in force when not null
    block_reason TEXT, -- budget, provider; a block is in force when not null
    block_message TEXT,
    block_providers TEXT -- identifiers joined by commas; empty: every provider
);
CREATE INDEX devices_of_organisation ON devices (organisation_id, hostname);

CREATE TABLE certificates (
    serial TEXT PRIMARY KEY, -- hexadecimal
    device_id TEXT NOT NULL REFERENCES devices (id),
    issuer TEXT NOT NULL, -- hexadecimal key identifier of the intermediate
    not_before BIGINT NOT NULL,
    not_after BIGINT NOT NULL,
    der TEXT NOT NULL -- base64
);
CREATE INDEX certificates_of_device ON certificates (device_id);

CREATE TABLE enrolment_tokens (
    hash TEXT PRIMARY KEY, -- SHA-256 of the token, hexadecimal; the token itself is never stored
    organisation_id TEXT NOT NULL REFERENCES organisations (id),
    department_id TEXT REFERENCES departments (id),
    user_id TEXT REFERENCES users (id),
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    used_at BIGINT,
    used_by TEXT REFERENCES devices (id)
);

-- One row for each event of a device, as it came. Raw, kept for a limited time.
CREATE TABLE events (
    device_id TEXT NOT NULL REFERENCES devices (id),
    sequence BIGINT NOT NULL,
    received_at BIGINT NOT NULL,
    minute BIGINT NOT NULL,
    kind TEXT NOT NULL, -- usage, blocked, dropped
    provider TEXT,
    service TEXT,
    host TEXT,
    name_source TEXT,
    user_account TEXT,
    application TEXT,
    exchanges BIGINT,
    bytes_out BIGINT,
    bytes_in BIGINT,
    bytes_handshake BIGINT,
    duration_s BIGINT,
    streaming BIGINT,
    partial BIGINT,
    tokens_in_low BIGINT,
    tokens_in_point BIGINT,
    tokens_in_high BIGINT,
    tokens_out_low BIGINT,
    tokens_out_point BIGINT,
    tokens_out_high BIGINT,
    calibration TEXT,
    reason TEXT, -- of a blocked attempt
    cut BIGINT, -- of a blocked attempt: the connection was open
    dropped BIGINT, -- how many events a limit forced out
    PRIMARY KEY (device_id, sequence)
);

-- The ledger: hourly sums, booked in the transaction that stores the events, with the
-- organisation and department of that moment. Tokens without a price add to tokens_unpriced, not to cost.
CREATE TABLE usage_hourly (
    organisation_id TEXT NOT NULL,
    department_id TEXT NOT NULL, -- empty: none
    device_id TEXT NOT NULL,
    user_account TEXT NOT NULL, -- empty: unknown
    application TEXT NOT NULL, -- empty: unknown
    provider TEXT NOT NULL,
    service TEXT NOT NULL,
    hour BIGINT NOT NULL, -- Unix hours
    events BIGINT NOT NULL,
    blocked BIGINT NOT NULL,
    exchanges BIGINT NOT NULL,
    bytes_out BIGINT NOT NULL,
    bytes_in BIGINT NOT NULL,
    tokens_in_low BIGINT NOT NULL,
    tokens_in_point BIGINT NOT NULL,
    tokens_in_high BIGINT NOT NULL,
    tokens_out_low BIGINT NOT NULL,
    tokens_out_point BIGINT NOT NULL,
    tokens_out_high BIGINT NOT NULL,
    cost_low_micros BIGINT NOT NULL,
    cost_point_micros BIGINT NOT NULL,
    cost_high_micros BIGINT NOT NULL,
    tokens_unpriced BIGINT NOT NULL, -- of the point estimates, those without a price
    PRIMARY KEY (organisation_id, hour, department_id, device_id, user_account, application, provider, service)
);

CREATE TABLE administrators (
    id TEXT PRIMARY KEY,
    organisation_id TEXT NOT NULL REFERENCES organisations (id),
    name TEXT NOT NULL UNIQUE,
    password_hash TEXT NOT NULL, -- argon2id, PHC string
    created_at BIGINT NOT NULL,
    failed_attempts BIGINT NOT NULL,
    locked_until BIGINT
);

CREATE TABLE sessions (
    hash TEXT PRIMARY KEY, -- SHA-256 of the cookie, hexadecimal
    administrator_id TEXT NOT NULL REFERENCES administrators (id),
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);

CREATE TABLE audit (
    id BIGINT PRIMARY KEY, -- 1, 2, 3…
    at BIGINT NOT NULL,
    organisation_id TEXT,
    actor TEXT NOT NULL, -- administrator's name, device's identifier, or cli
    action TEXT NOT NULL, -- for example enrol, enrol_refused, revoke, block
    subject TEXT NOT NULL,
    detail TEXT NOT NULL
);

-- One row, one number: grows with every administrative change, so that a running server
-- that reads it a few times a second knows when to read its devices anew.
CREATE TABLE changes (
    id BIGINT PRIMARY KEY,
    counter BIGINT NOT NULL
);
INSERT INTO changes (id, counter) VALUES (1, 0);
