-- What an account of the console may do. Those that there were could do everything, and still can; one
-- whose role is not said may only read.
ALTER TABLE administrators ADD COLUMN role TEXT NOT NULL DEFAULT 'auditor'; -- owner, admin, budget_owner, auditor
UPDATE administrators SET role = 'owner';
ALTER TABLE administrators ADD COLUMN disabled_at BIGINT; -- signs nobody in when not null

-- The departments of a budget owner; those below them are theirs, too.
CREATE TABLE administrator_departments (
    administrator_id TEXT NOT NULL REFERENCES administrators (id),
    department_id TEXT NOT NULL REFERENCES departments (id),
    PRIMARY KEY (administrator_id, department_id)
);
