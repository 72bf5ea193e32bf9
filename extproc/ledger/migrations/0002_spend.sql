-- What each decision came to in the end, for sums: of an end set down provisionally (EXPIRE) and its late
-- correction (ADJUST) only the correction counts. Denied decisions came to nothing, and open ones have not
-- come to anything yet. The time is the decision's, as with caps; where that record was lost, the end's, and
-- nobody knows whose it is. nano_usd is NULL where no price is known: sums are without it, count it.
CREATE VIEW spend AS
SELECT
    usage.decision_id,
    COALESCE(decisions.occurred_at_us, usage.occurred_at_us) AS occurred_at_us,
    decisions.team,
    decisions.user_name,
    decisions.key_name,
    decisions.provider,
    decisions.model,
    decisions.operation,
    usage.basis,
    usage.kind = 'EXPIRE' AS is_provisional,
    usage.input_tokens,
    usage.output_tokens,
    usage.cache_read_input_tokens,
    usage.cache_creation_input_tokens,
    usage.reasoning_output_tokens,
    usage.nano_usd
FROM usage
LEFT JOIN decisions ON decisions.id = usage.decision_id
WHERE NOT EXISTS (
    SELECT 1 FROM usage AS later
    WHERE later.decision_id = usage.decision_id AND later.sequence > usage.sequence
);
