-- What the console's pages read: sums of a day, in the organisation's time zone at the time of booking and
-- in days since 1970-01-01, booked in the transaction that stores the events. A department or user is the
-- device's at that moment; empty: none. The first table has every part, the others fewer and so far
-- fewer rows; a page reads the smallest that has what it asks for.

CREATE TABLE usage_daily (
    organisation_id TEXT NOT NULL,
    day BIGINT NOT NULL,
    department_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    provider TEXT NOT NULL,
    service TEXT NOT NULL,
    application TEXT NOT NULL,
    blocked BIGINT NOT NULL,
    exchanges BIGINT NOT NULL,
    tokens_in_low BIGINT NOT NULL,
    tokens_in_point BIGINT NOT NULL,
    tokens_in_high BIGINT NOT NULL,
    tokens_out_low BIGINT NOT NULL,
    tokens_out_point BIGINT NOT NULL,
    tokens_out_high BIGINT NOT NULL,
    cost_low_micros BIGINT NOT NULL,
    cost_point_micros BIGINT NOT NULL,
    cost_high_micros BIGINT NOT NULL,
    tokens_unpriced BIGINT NOT NULL,
    PRIMARY KEY (organisation_id, day, department_id, user_id, device_id, provider, service, application)
);

CREATE TABLE usage_daily_by_service (
    organisation_id TEXT NOT NULL,
    day BIGINT NOT NULL,
    department_id TEXT NOT NULL,
    provider TEXT NOT NULL,
    service TEXT NOT NULL,
    application TEXT NOT NULL,
    blocked BIGINT NOT NULL,
    exchanges BIGINT NOT NULL,
    tokens_in_low BIGINT NOT NULL,
    tokens_in_point BIGINT NOT NULL,
    tokens_in_high BIGINT NOT NULL,
    tokens_out_low BIGINT NOT NULL,
    tokens_out_point BIGINT NOT NULL,
    tokens_out_high BIGINT NOT NULL,
    cost_low_micros BIGINT NOT NULL,
    cost_point_micros BIGINT NOT NULL,
    cost_high_micros BIGINT NOT NULL,
    tokens_unpriced BIGINT NOT NULL,
    PRIMARY KEY (organisation_id, day, department_id, provider, service, application)
);

CREATE TABLE usage_daily_by_device (
    organisation_id TEXT NOT NULL,
    day BIGINT NOT NULL,
    department_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    blocked BIGINT NOT NULL,
    exchanges BIGINT NOT NULL,
    tokens_in_low BIGINT NOT NULL,
    tokens_in_point BIGINT NOT NULL,
    tokens_in_high BIGINT NOT NULL,
    tokens_out_low BIGINT NOT NULL,
    tokens_out_point BIGINT NOT NULL,
    tokens_out_high BIGINT NOT NULL,
    cost_low_micros BIGINT NOT NULL,
    cost_point_micros BIGINT NOT NULL,
    cost_high_micros BIGINT NOT NULL,
    tokens_unpriced BIGINT NOT NULL,
    PRIMARY KEY (organisation_id, day, department_id, user_id, device_id)
);

-- What was booked before there were these: by day of UTC, because hours do not tell another zone's days,
-- and for the user that the device has now. Bounded as in spend_daily, and added as doubles for its reason.
INSERT INTO usage_daily (organisation_id, day, department_id, user_id, device_id, provider, service, application,
    blocked, exchanges, tokens_in_low, tokens_in_point, tokens_in_high, tokens_out_low,
    tokens_out_point, tokens_out_high, cost_low_micros, cost_point_micros, cost_high_micros, tokens_unpriced)
WITH sums AS (
    SELECT h.organisation_id, h.hour / 24 AS day, h.department_id, COALESCE(d.user_id, '') AS user_id, h.device_id, h.provider, h.service, h.application,
    SUM(CAST(h.blocked AS DOUBLE PRECISION)) AS blocked,
    SUM(CAST(h.exchanges AS DOUBLE PRECISION)) AS exchanges,
    SUM(CAST(h.tokens_in_low AS DOUBLE PRECISION)) AS tokens_in_low,
    SUM(CAST(h.tokens_in_point AS DOUBLE PRECISION)) AS tokens_in_point,
    SUM(CAST(h.tokens_in_high AS DOUBLE PRECISION)) AS tokens_in_high,
    SUM(CAST(h.tokens_out_low AS DOUBLE PRECISION)) AS tokens_out_low,
    SUM(CAST(h.tokens_out_point AS DOUBLE PRECISION)) AS tokens_out_point,
    SUM(CAST(h.tokens_out_high AS DOUBLE PRECISION)) AS tokens_out_high,
    SUM(CAST(h.cost_low_micros AS DOUBLE PRECISION)) AS cost_low_micros,
    SUM(CAST(h.cost_point_micros AS DOUBLE PRECISION)) AS cost_point_micros,
    SUM(CAST(h.cost_high_micros AS DOUBLE PRECISION)) AS cost_high_micros,
    SUM(CAST(h.tokens_unpriced AS DOUBLE PRECISION)) AS tokens_unpriced
    FROM usage_hourly h LEFT JOIN devices d ON d.id = h.device_id WHERE h.hour >= 0
    GROUP BY h.organisation_id, h.hour / 24, h.department_id, COALESCE(d.user_id, ''), h.device_id, h.provider, h.service, h.application
)
SELECT organisation_id, day, department_id, user_id, device_id, provider, service, application,
    CAST(CASE WHEN blocked > 1125899906842624 THEN 1125899906842624 ELSE blocked END AS BIGINT),
    CAST(CASE WHEN exchanges > 1125899906842624 THEN 1125899906842624 ELSE exchanges END AS BIGINT),
    CAST(CASE WHEN tokens_in_low > 1125899906842624 THEN 1125899906842624 ELSE tokens_in_low END AS BIGINT),
    CAST(CASE WHEN tokens_in_point > 1125899906842624 THEN 1125899906842624 ELSE tokens_in_point END AS BIGINT),
    CAST(CASE WHEN tokens_in_high > 1125899906842624 THEN 1125899906842624 ELSE tokens_in_high END AS BIGINT),
    CAST(CASE WHEN tokens_out_low > 1125899906842624 THEN 1125899906842624 ELSE tokens_out_low END AS BIGINT),
    CAST(CASE WHEN tokens_out_point > 1125899906842624 THEN 1125899906842624 ELSE tokens_out_point END AS BIGINT),
    CAST(CASE WHEN tokens_out_high > 1125899906842624 THEN 1125899906842624 ELSE tokens_out_high END AS BIGINT),
    CAST(CASE WHEN cost_low_micros > 1125899906842624 THEN 1125899906842624 ELSE cost_low_micros END AS BIGINT),
    CAST(CASE WHEN cost_point_micros > 1125899906842624 THEN 1125899906842624 ELSE cost_point_micros END AS BIGINT),
    CAST(CASE WHEN cost_high_micros > 1125899906842624 THEN 1125899906842624 ELSE cost_high_micros END AS BIGINT),
    CAST(CASE WHEN tokens_unpriced > 1125899906842624 THEN 1125899906842624 ELSE tokens_unpriced END AS BIGINT)
FROM sums;

INSERT INTO usage_daily_by_service (organisation_id, day, department_id, provider, service, application,
    blocked, exchanges, tokens_in_low, tokens_in_point, tokens_in_high, tokens_out_low,
    tokens_out_point, tokens_out_high, cost_low_micros, cost_point_micros, cost_high_micros, tokens_unpriced)
WITH sums AS (
    SELECT u.organisation_id, u.day, u.department_id, u.provider, u.service, u.application,
    SUM(CAST(u.blocked AS DOUBLE PRECISION)) AS blocked,
    SUM(CAST(u.exchanges AS DOUBLE PRECISION)) AS exchanges,
    SUM(CAST(u.tokens_in_low AS DOUBLE PRECISION)) AS tokens_in_low,
    SUM(CAST(u.tokens_in_point AS DOUBLE PRECISION)) AS tokens_in_point,
    SUM(CAST(u.tokens_in_high AS DOUBLE PRECISION)) AS tokens_in_high,
    SUM(CAST(u.tokens_out_low AS DOUBLE PRECISION)) AS tokens_out_low,
    SUM(CAST(u.tokens_out_point AS DOUBLE PRECISION)) AS tokens_out_point,
    SUM(CAST(u.tokens_out_high AS DOUBLE PRECISION)) AS tokens_out_high,
    SUM(CAST(u.cost_low_micros AS DOUBLE PRECISION)) AS cost_low_micros,
    SUM(CAST(u.cost_point_micros AS DOUBLE PRECISION)) AS cost_point_micros,
    SUM(CAST(u.cost_high_micros AS DOUBLE PRECISION)) AS cost_high_micros,
    SUM(CAST(u.tokens_unpriced AS DOUBLE PRECISION)) AS tokens_unpriced
    FROM usage_daily u
    GROUP BY u.organisation_id, u.day, u.department_id, u.provider, u.service, u.application
)
SELECT organisation_id, day, department_id, provider, service, application,
    CAST(CASE WHEN blocked > 1125899906842624 THEN 1125899906842624 ELSE blocked END AS BIGINT),
    CAST(CASE WHEN exchanges > 1125899906842624 THEN 1125899906842624 ELSE exchanges END AS BIGINT),
    CAST(CASE WHEN tokens_in_low > 1125899906842624 THEN 1125899906842624 ELSE tokens_in_low END AS BIGINT),
    CAST(CASE WHEN tokens_in_point > 1125899906842624 THEN 1125899906842624 ELSE tokens_in_point END AS BIGINT),
    CAST(CASE WHEN tokens_in_high > 1125899906842624 THEN 1125899906842624 ELSE tokens_in_high END AS BIGINT),
    CAST(CASE WHEN tokens_out_low > 1125899906842624 THEN 1125899906842624 ELSE tokens_out_low END AS BIGINT),
    CAST(CASE WHEN tokens_out_point > 1125899906842624 THEN 1125899906842624 ELSE tokens_out_point END AS BIGINT),
    CAST(CASE WHEN tokens_out_high > 1125899906842624 THEN 1125899906842624 ELSE tokens_out_high END AS BIGINT),
    CAST(CASE WHEN cost_low_micros > 1125899906842624 THEN 1125899906842624 ELSE cost_low_micros END AS BIGINT),
    CAST(CASE WHEN cost_point_micros > 1125899906842624 THEN 1125899906842624 ELSE cost_point_micros END AS BIGINT),
    CAST(CASE WHEN cost_high_micros > 1125899906842624 THEN 1125899906842624 ELSE cost_high_micros END AS BIGINT),
    CAST(CASE WHEN tokens_unpriced > 1125899906842624 THEN 1125899906842624 ELSE tokens_unpriced END AS BIGINT)
FROM sums;

INSERT INTO usage_daily_by_device (organisation_id, day, department_id, user_id, device_id,
    blocked, exchanges, tokens_in_low, tokens_in_point, tokens_in_high, tokens_out_low,
    tokens_out_point, tokens_out_high, cost_low_micros, cost_point_micros, cost_high_micros, tokens_unpriced)
WITH sums AS (
    SELECT u.organisation_id, u.day, u.department_id, u.user_id, u.device_id,
    SUM(CAST(u.blocked AS DOUBLE PRECISION)) AS blocked,
    SUM(CAST(u.exchanges AS DOUBLE PRECISION)) AS exchanges,
    SUM(CAST(u.tokens_in_low AS DOUBLE PRECISION)) AS tokens_in_low,
    SUM(CAST(u.tokens_in_point AS DOUBLE PRECISION)) AS tokens_in_point,
    SUM(CAST(u.tokens_in_high AS DOUBLE PRECISION)) AS tokens_in_high,
    SUM(CAST(u.tokens_out_low AS DOUBLE PRECISION)) AS tokens_out_low,
    SUM(CAST(u.tokens_out_point AS DOUBLE PRECISION)) AS tokens_out_point,
    SUM(CAST(u.tokens_out_high AS DOUBLE PRECISION)) AS tokens_out_high,
    SUM(CAST(u.cost_low_micros AS DOUBLE PRECISION)) AS cost_low_micros,
    SUM(CAST(u.cost_point_micros AS DOUBLE PRECISION)) AS cost_point_micros,
    SUM(CAST(u.cost_high_micros AS DOUBLE PRECISION)) AS cost_high_micros,
    SUM(CAST(u.tokens_unpriced AS DOUBLE PRECISION)) AS tokens_unpriced
    FROM usage_daily u
    GROUP BY u.organisation_id, u.day, u.department_id, u.user_id, u.device_id
)
SELECT organisation_id, day, department_id, user_id, device_id,
    CAST(CASE WHEN blocked > 1125899906842624 THEN 1125899906842624 ELSE blocked END AS BIGINT),
    CAST(CASE WHEN exchanges > 1125899906842624 THEN 1125899906842624 ELSE exchanges END AS BIGINT),
    CAST(CASE WHEN tokens_in_low > 1125899906842624 THEN 1125899906842624 ELSE tokens_in_low END AS BIGINT),
    CAST(CASE WHEN tokens_in_point > 1125899906842624 THEN 1125899906842624 ELSE tokens_in_point END AS BIGINT),
    CAST(CASE WHEN tokens_in_high > 1125899906842624 THEN 1125899906842624 ELSE tokens_in_high END AS BIGINT),
    CAST(CASE WHEN tokens_out_low > 1125899906842624 THEN 1125899906842624 ELSE tokens_out_low END AS BIGINT),
    CAST(CASE WHEN tokens_out_point > 1125899906842624 THEN 1125899906842624 ELSE tokens_out_point END AS BIGINT),
    CAST(CASE WHEN tokens_out_high > 1125899906842624 THEN 1125899906842624 ELSE tokens_out_high END AS BIGINT),
    CAST(CASE WHEN cost_low_micros > 1125899906842624 THEN 1125899906842624 ELSE cost_low_micros END AS BIGINT),
    CAST(CASE WHEN cost_point_micros > 1125899906842624 THEN 1125899906842624 ELSE cost_point_micros END AS BIGINT),
    CAST(CASE WHEN cost_high_micros > 1125899906842624 THEN 1125899906842624 ELSE cost_high_micros END AS BIGINT),
    CAST(CASE WHEN tokens_unpriced > 1125899906842624 THEN 1125899906842624 ELSE tokens_unpriced END AS BIGINT)
FROM sums;
