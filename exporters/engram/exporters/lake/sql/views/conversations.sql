-- One row per conversation.
CREATE OR REPLACE VIEW conversations AS
SELECT
    conversation,
    count(*) FILTER (role = 'user') AS questions,
    count(*) FILTER (role = 'assistant') AS answers,
    count(*) FILTER (role = 'tool') AS tool_calls,
    count(*) FILTER (outcome = 'error') AS failures,
    min(time) AS first_time, max(time) AS last_time,
    max(nullif(user_id, '')) AS user_id,
    arg_min(text, turn) FILTER (role = 'user') AS first_question
FROM conversation_turns
GROUP BY conversation;
