-- Token Perks: what people may use personally, as administrators set it. What they use is not here but
-- in the vault, a database of its own that names nobody; only sums over at least five people come back.
-- A month is as `2026-11` in the organisation's time zone. What was set in a month holds from that month
-- on, so that what a past month allowed stays known.

CREATE TABLE perk_tiers (
    id TEXT PRIMARY KEY,
    organisation_id TEXT NOT NULL REFERENCES organisations (id),
    name TEXT NOT NULL,
    removed BIGINT NOT NULL, -- 0, 1; a removed one stays for the months in which it was there
    UNIQUE (organisation_id, name)
);

CREATE TABLE perk_terms (
    tier_id TEXT NOT NULL REFERENCES perk_tiers (id),
    month TEXT NOT NULL, -- the first for which they hold
    monthly_tokens BIGINT NOT NULL,
    rollover_tokens BIGINT NOT NULL, -- most that a month may leave to the next
    PRIMARY KEY (tier_id, month)
);

CREATE TABLE perk_enrolments (
    user_id TEXT NOT NULL REFERENCES users (id),
    month TEXT NOT NULL, -- the first for which it holds
    tier_id TEXT REFERENCES perk_tiers (id), -- null: in none
    PRIMARY KEY (user_id, month)
);
CREATE INDEX perk_enrolments_by_tier ON perk_enrolments (tier_id);

CREATE TABLE perk_bonuses (
    organisation_id TEXT NOT NULL REFERENCES organisations (id),
    month TEXT NOT NULL, -- the only one for which it holds
    scope TEXT NOT NULL, -- tier, user
    scope_id TEXT NOT NULL,
    tokens BIGINT NOT NULL,
    PRIMARY KEY (organisation_id, month, scope, scope_id)
);

-- A copy of the vault's sums, each over at least five people; made once, never changed.
CREATE TABLE perk_sums (
    organisation_id TEXT NOT NULL REFERENCES organisations (id),
    month TEXT NOT NULL,
    tier_id TEXT NOT NULL, -- empty: of no tier by itself
    others BIGINT NOT NULL, -- 1: with all tiers that have no row of their own
    tokens BIGINT NOT NULL,
    PRIMARY KEY (organisation_id, month, tier_id)
);

ALTER TABLE retention ADD COLUMN personal_months BIGINT NOT NULL DEFAULT 13; -- of sealed records
