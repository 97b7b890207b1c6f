-- Which models an organisation uses of a service, as it says itself: the connection does not show it.
-- The shares of a service's models add up to 1000.
CREATE TABLE price_mix (
    organisation_id TEXT NOT NULL REFERENCES organisations (id),
    service TEXT NOT NULL,
    model TEXT NOT NULL,
    share_permille BIGINT NOT NULL, -- 1 to 1000
    PRIMARY KEY (organisation_id, service, model)
);
