-- Portable SQL, as the ledger's. A member is the SHA-256 of a secret that only the user's devices
-- have, hexadecimal. Nothing here names a person, an account or a device, and no time is finer than a
-- month (`2026-11`, in the organisation's time zone).

CREATE TABLE vault_members (
    organisation_id TEXT NOT NULL,
    member TEXT NOT NULL,
    person BIGINT NOT NULL, -- 1: counts as one of the people of a sum; 0: another name of somebody who does
    last_place BIGINT NOT NULL, -- of the member's records: 1, 2, 3…
    records BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    PRIMARY KEY (organisation_id, member)
);

CREATE TABLE vault_slots (
    organisation_id TEXT NOT NULL,
    member TEXT NOT NULL,
    slot TEXT NOT NULL, -- base64url
    acknowledged BIGINT NOT NULL, -- highest number stored, with all before it
    PRIMARY KEY (organisation_id, member, slot)
);

CREATE TABLE sealed_records (
    organisation_id TEXT NOT NULL,
    member TEXT NOT NULL,
    place BIGINT NOT NULL,
    slot TEXT NOT NULL,
    number BIGINT NOT NULL,
    month TEXT NOT NULL, -- in which it came
    sealed TEXT NOT NULL, -- base64
    PRIMARY KEY (organisation_id, member, place)
);
CREATE INDEX sealed_records_by_month ON sealed_records (organisation_id, month);

CREATE TABLE monthly_totals (
    organisation_id TEXT NOT NULL,
    month TEXT NOT NULL,
    member TEXT NOT NULL, -- or a random name, of one who left
    slot TEXT NOT NULL, -- empty: of one who left
    tokens BIGINT NOT NULL,
    PRIMARY KEY (organisation_id, month, member, slot)
);
CREATE INDEX monthly_totals_of_member ON monthly_totals (organisation_id, member, month);

CREATE TABLE monthly_members (
    organisation_id TEXT NOT NULL,
    month TEXT NOT NULL,
    member TEXT NOT NULL, -- as in monthly_totals
    tier_id TEXT NOT NULL, -- empty: one in which fewer than five people are enrolled
    person BIGINT NOT NULL, -- as in vault_members
    PRIMARY KEY (organisation_id, month, member)
);

-- A month that takes no totals any more. Its sums never change, and its totals go when nothing is
-- carried over from them any more.
CREATE TABLE closed_months (
    organisation_id TEXT NOT NULL,
    month TEXT NOT NULL,
    PRIMARY KEY (organisation_id, month)
);

CREATE TABLE month_sums (
    organisation_id TEXT NOT NULL,
    month TEXT NOT NULL,
    tier_id TEXT NOT NULL, -- empty: of no tier by itself
    others BIGINT NOT NULL, -- 1: with all tiers that have no row of their own
    tokens BIGINT NOT NULL,
    PRIMARY KEY (organisation_id, month, tier_id)
);
