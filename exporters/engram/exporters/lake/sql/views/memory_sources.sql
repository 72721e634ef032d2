-- One row per record that a memory was made from.
CREATE OR REPLACE VIEW memory_sources AS
SELECT id AS memory_id, type, unnest(sources) AS content_hash
FROM memories;
