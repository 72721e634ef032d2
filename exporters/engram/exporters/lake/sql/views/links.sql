-- How memories of one trace belong together: request, what it asked, what it answered, what failed in it.
-- `relation` reads from left to right: from_id "failed with" to_id.
CREATE OR REPLACE VIEW links AS
SELECT
    a.id AS from_id, a.type AS from_type, r.relation, b.id AS to_id, b.type AS to_type,
    a.trace_id, a.time_unix_nano AS from_ns, b.time_unix_nano AS to_ns
FROM memories AS a
JOIN (
    VALUES
        ('request_intent', 'came to', 'request_outcome', true),
        ('request_outcome', 'failed with', 'system_error', false),
        ('request_outcome', 'failed with', 'ui_error', false),
        ('request_outcome', 'asked', 'ai_response', false),
        ('request_outcome', 'called', 'api_call', false),
        ('request_outcome', 'decided', 'business_decision', false),
        ('user_interaction', 'was answered by', 'ai_response', true),
        ('ai_response', 'failed with', 'system_error', true),
        ('api_call', 'failed with', 'system_error', true),
        ('user_action', 'led to', 'request_outcome', false),
        ('user_action', 'led to', 'ui_error', false)
) AS r (from_type, relation, to_type, same_span) ON r.from_type = a.type
JOIN memories AS b
    ON b.type = r.to_type AND b.trace_id = a.trace_id AND b.id <> a.id
    AND (NOT r.same_span OR b.span_id = a.span_id);
