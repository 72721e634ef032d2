-- Conversations, turn by turn, in the order in which they were said, whatever the order of arrival.
-- A question and its answer may have one time (both are told when the model has answered), so a
-- question counts from the begin of its call, an answer from its end, and a tool call lies in between.
CREATE OR REPLACE VIEW conversation_turns AS
WITH said AS (
    SELECT
        coalesce(nullif(conversation_id, ''), nullif(session_id, ''), trace_id, id) AS conversation,
        CASE WHEN type IN ('user_interaction', 'aurea_conversation') THEN 'user' ELSE 'assistant' END AS role,
        CASE
            WHEN type IN ('ai_response', 'aurea_response')
                THEN coalesce(end_time_unix_nano, time_unix_nano)
            WHEN trace_id IS NULL OR span_id IS NULL THEN time_unix_nano
            ELSE min(time_unix_nano) OVER (PARTITION BY trace_id, span_id)
        END AS at_ns,
        coalesce(content, title) AS text,
        attributes ->> '$.model' AS model,
        outcome, id AS memory_id, user_id, service_name, trace_id, span_id
    FROM memories
    WHERE type IN ('user_interaction', 'ai_response', 'aurea_conversation', 'aurea_response')
),
of_trace AS (SELECT trace_id, min(conversation) AS conversation FROM said GROUP BY trace_id),
turns AS (
    FROM said
    UNION ALL BY NAME
    SELECT
        coalesce(s.gen_ai_conversation_id, t.conversation) AS conversation,
        'tool' AS role,
        s.start_time_unix_nano AS at_ns,
        concat(
            coalesce(s.attributes ->> '$."gen_ai.tool.name"', s.name),
            '(' || (s.attributes ->> '$."gen_ai.tool.call.arguments"') || ')',
            ' → ' || (s.attributes ->> '$."gen_ai.tool.call.result"')
        ) AS text,
        CASE s.status_code WHEN 2 THEN 'error' ELSE 'ok' END AS outcome,
        s.service_name, s.trace_id, s.span_id
    FROM spans AS s
    LEFT JOIN of_trace AS t ON t.trace_id = s.trace_id
    WHERE s.gen_ai_operation_name = 'execute_tool'
        AND coalesce(s.gen_ai_conversation_id, t.conversation) IS NOT NULL
)
SELECT
    conversation,
    row_number() OVER (
        PARTITION BY conversation
        ORDER BY at_ns, CASE role WHEN 'user' THEN 0 WHEN 'assistant' THEN 1 ELSE 2 END,
            coalesce(memory_id, span_id)
    ) AS turn,
    make_timestamp_ns(at_ns) AS time,
    role, text, model, outcome, user_id, service_name, memory_id, trace_id, span_id
FROM turns;
