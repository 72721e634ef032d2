-- The turns of one conversation (its id, else a session's, else a trace's), in order.
CREATE OR REPLACE MACRO conversation(which) AS TABLE
SELECT * EXCLUDE (conversation)
FROM lake.conversation_turns
WHERE conversation = which
ORDER BY turn;
