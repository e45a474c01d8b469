-- Seats of the three seeded events. In the id 5ea7000E-0000-0000-0000-00000000NNNN, E is the event and NNNN the seat.
-- The script is safe to run again, because it leaves existing seats unchanged.

INSERT INTO seats (seat_id, event_id, row_number, seat_number, category)
SELECT ('5ea7000' || event || '-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid,
       ('e0e0e0e0-0000-0000-0000-00000000000' || event)::uuid,
       label, (n - 1) % per_row + 1, category
FROM (
    -- Event 1: rows A to D with 25 seats each. Row A is CAT1, rows B and C are CAT2, row D is CAT3.
    SELECT 1 AS event, n, 25 AS per_row, chr(65 + (n - 1) / 25) AS label,
           (ARRAY['CAT1', 'CAT2', 'CAT2', 'CAT3'])[1 + (n - 1) / 25] AS category
    FROM generate_series(1, 100) AS n
    UNION ALL
    -- Event 2: rows R001 to R100 with 50 seats each. Rows 1 to 20 are CAT1, rows 21 to 60 CAT2, the rest CAT3.
    SELECT 2, n, 50, 'R' || lpad(((n - 1) / 50 + 1)::text, 3, '0'),
           CASE WHEN (n - 1) / 50 < 20 THEN 'CAT1' WHEN (n - 1) / 50 < 60 THEN 'CAT2' ELSE 'CAT3' END
    FROM generate_series(1, 5000) AS n
    UNION ALL
    -- Event 3 is over. It has one row with 20 seats.
    SELECT 3, n, 20, 'A', 'CAT1' FROM generate_series(1, 20) AS n
) AS layout
ON CONFLICT DO NOTHING;
