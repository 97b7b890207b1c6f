-- Identities that last: renewal, approval, reusable tokens, rotation, and a chained audit trail.

-- Of the machine's own identifier, hashed on the device: an attribute, never proof. A device whose
-- attribute another living device has, or whose old certificate came back, is flagged.
ALTER TABLE devices ADD COLUMN hardware TEXT;
ALTER TABLE devices ADD COLUMN flag TEXT; -- cloned_hardware, superseded_certificate; null: none
ALTER TABLE devices ADD COLUMN certificate_serial TEXT; -- of the newest certificate that was used
ALTER TABLE devices ADD COLUMN revoked_at BIGINT;
CREATE INDEX devices_by_hardware ON devices (organisation_id, hardware);

-- SHA-256 of the SubjectPublicKeyInfo, hexadecimal: a key is certified once.
ALTER TABLE certificates ADD COLUMN public_key TEXT;
ALTER TABLE certificates ADD COLUMN purpose TEXT NOT NULL DEFAULT 'enrol'; -- enrol, renew, recover
ALTER TABLE certificates ADD COLUMN chain_pem TEXT; -- as it was given, to give it again
ALTER TABLE certificates ADD COLUMN root TEXT; -- key identifier of the newest root that was given with it
ALTER TABLE certificates ADD COLUMN issued_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE certificates ADD COLUMN generation BIGINT NOT NULL DEFAULT 0; -- of the device: 0, 1, 2…; the use of one ends those before it
ALTER TABLE certificates ADD COLUMN first_used_at BIGINT;
ALTER TABLE certificates ADD COLUMN superseded_at BIGINT; -- a newer one of the device was used
ALTER TABLE certificates ADD COLUMN revoked_at BIGINT;
CREATE UNIQUE INDEX certificates_by_key ON certificates (public_key);
CREATE INDEX certificates_by_issuer ON certificates (issuer, not_after);

ALTER TABLE enrolment_tokens ADD COLUMN label TEXT NOT NULL DEFAULT '';
ALTER TABLE enrolment_tokens ADD COLUMN reusable BIGINT NOT NULL DEFAULT 0; -- 1: devices wait for approval
ALTER TABLE enrolment_tokens ADD COLUMN device_limit BIGINT NOT NULL DEFAULT 1;
ALTER TABLE enrolment_tokens ADD COLUMN withdrawn_at BIGINT;

-- Devices that came with a reusable token. The row stays after the decision.
CREATE TABLE enrolment_requests (
    id TEXT PRIMARY KEY,
    organisation_id TEXT NOT NULL REFERENCES organisations (id),
    token_hash TEXT NOT NULL REFERENCES enrolment_tokens (hash),
    public_key TEXT NOT NULL UNIQUE, -- as in certificates
    hostname TEXT NOT NULL,
    platform TEXT NOT NULL,
    agent_version TEXT NOT NULL,
    hardware TEXT,
    address TEXT NOT NULL,
    state TEXT NOT NULL, -- pending, approved, denied, enrolled
    requested_at BIGINT NOT NULL,
    decided_at BIGINT,
    decided_by TEXT,
    device_id TEXT REFERENCES devices (id)
);
CREATE INDEX enrolment_requests_by_token ON enrolment_requests (token_hash, state);
CREATE INDEX enrolment_requests_waiting ON enrolment_requests (organisation_id, state, requested_at);

-- Each row's hash covers the hash before it and the row (docs/identity.md has the exact bytes).
ALTER TABLE audit ADD COLUMN hash TEXT;
