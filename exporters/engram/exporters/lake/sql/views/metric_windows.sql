-- The numbers of metric memories: one row per series and window of five minutes.
--
-- Computed from the stored points, so it does not matter in which order they came. A quantile is estimated inside
-- the bucket that holds its rank: on a straight line in an explicit bucket, the first one beginning at 0 and the last
-- one standing for its lower bound, as Prometheus' histogram_quantile does; on a geometric line in an
-- exponential bucket, whose borders grow geometrically.
CREATE OR REPLACE VIEW metric_windows AS
WITH numbers AS (
    SELECT
        sources.memory_id,
        any_value(points.name) AS name,
        any_value(points.type) AS type,
        any_value(points.unit) AS unit,
        any_value(points.service_name) AS service_name,
        any_value(points.attributes) AS labels,
        make_timestamp_ns(min(time_unix_nano) // 300000000000 * 300000000000) AS window_start,
        count(*) AS points,
        sum(delta) AS delta,
        sum(delta_sum) AS delta_sum,
        sum(delta_seconds) FILTER (delta IS NOT NULL) AS seconds,
        min(CASE WHEN is_state THEN value WHEN temporality = 1 THEN points.min END) AS lowest,
        max(CASE WHEN is_state THEN value WHEN temporality = 1 THEN points.max END) AS highest,
        arg_max(CASE WHEN is_state OR points.type = 'sum' THEN value END, time_unix_nano) AS last_value,
        arg_max(quantiles, time_unix_nano) AS quantiles,
        arg_max(quantile_values, time_unix_nano) AS quantile_values
    FROM memory_sources AS sources
    JOIN metric_points AS points USING (content_hash)
    WHERE sources.type = 'performance_metric'
    GROUP BY sources.memory_id
),
ranked AS (
    SELECT
        *,
        sum(counted) OVER (
            PARTITION BY memory_id ORDER BY upper_bound NULLS LAST
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS up_to,
        sum(counted) OVER (PARTITION BY memory_id) AS total
    FROM metric_buckets
    WHERE counted > 0
),
estimated AS (
    SELECT
        memory_id,
        quantile,
        CASE
            WHEN upper_bound IS NULL THEN lower_bound
            WHEN lower_bound = upper_bound THEN lower_bound
            WHEN is_exponential THEN lower_bound * pow(upper_bound / lower_bound, part)
            WHEN lower_bound IS NULL AND upper_bound <= 0 THEN upper_bound
            ELSE coalesce(lower_bound, 0) + (upper_bound - coalesce(lower_bound, 0)) * part
        END AS estimate
    FROM (
        SELECT *, (quantile * total - (up_to - counted)) / counted AS part
        FROM ranked, (SELECT unnest([0.5, 0.95, 0.99]) AS quantile)
    )
    WHERE part > 0 AND part <= 1
)
SELECT
    numbers.memory_id,
    window_start,
    name,
    type,
    unit,
    service_name,
    labels,
    points,
    delta,  -- of a counter how much it grew, of histogram and summary how many were counted
    delta / nullif(seconds, 0) AS per_second,
    delta_sum / nullif(delta, 0) AS average,
    lowest,
    highest,
    last_value,
    max(estimate) FILTER (quantile = 0.5) AS p50,
    max(estimate) FILTER (quantile = 0.95) AS p95,
    max(estimate) FILTER (quantile = 0.99) AS p99,
    quantiles,  -- of a summary, as its sender computed them
    quantile_values
FROM numbers
LEFT JOIN estimated USING (memory_id)
GROUP BY ALL;
