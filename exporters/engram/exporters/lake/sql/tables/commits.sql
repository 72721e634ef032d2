-- One row per commit, in the same transaction as its rows: replay starts at the last position.
CREATE TABLE commits (
    collector VARCHAR,
    sequence BIGINT,
    position BIGINT,  -- write-ahead log position behind the last request of the commit
    recorded_at BIGINT,
    spans BIGINT,
    logs BIGINT,
    metrics BIGINT,
    memories BIGINT,
    merged BIGINT,  -- memories that replaced an earlier version of themselves
    duplicates BIGINT  -- records left out because they had been stored before
);
