-- Memories of which the index may know something that is no longer so: their rules changed
-- (`engram rederive`), and they are gone or have another text. Whoever keeps an index looks again.
CREATE TABLE withdrawn (
    id VARCHAR,
    type VARCHAR,  -- type, service and index_as are those it had: they say which index row it was in
    service_name VARCHAR,
    index_as VARCHAR,
    collector VARCHAR,
    sequence BIGINT,  -- number of the commit, as of memories: what readers follow
    recorded_at BIGINT
);
