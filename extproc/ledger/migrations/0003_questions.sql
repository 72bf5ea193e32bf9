-- What people ask by: who called, and which policies there were then. Rows from before say nobody called.

ALTER TABLE decisions ADD COLUMN identity TEXT NOT NULL DEFAULT '';

CREATE INDEX decisions_by_identity ON decisions (identity, occurred_at_us);

CREATE INDEX decisions_by_team ON decisions (team, occurred_at_us);

CREATE INDEX decisions_denied ON decisions (occurred_at_us) WHERE enforced_effect = 'deny';

CREATE INDEX decisions_would_deny ON decisions (occurred_at_us) WHERE would_deny;

-- The words of the policies that were in force: JSON, the YAML of each spec by Kind/name.
CREATE TABLE revisions (
    revision TEXT NOT NULL PRIMARY KEY,
    activated_at_us BIGINT NOT NULL,
    in_force_at_us BIGINT NOT NULL,
    wording TEXT NOT NULL
);
