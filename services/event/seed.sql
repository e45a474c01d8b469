-- One venue, two upcoming events and one past event. Dates are relative to the day of the first run, because a fixed
-- date would one day be in the past (D39). A second run changes nothing. Events start at 19:00 in Singapore, 11:00 UTC.

INSERT INTO venues (venue_id, name, address, total_halls) VALUES
    ('a0a0a0a0-0000-0000-0000-000000000001', 'Singapore Indoor Stadium', '2 Stadium Walk, Singapore 397691', 3)
ON CONFLICT DO NOTHING;

INSERT INTO events (event_id, name, venue_id, hall_id, event_date, total_seats, pricing_tiers)
SELECT event_id::uuid, name, 'a0a0a0a0-0000-0000-0000-000000000001', hall_id,
       date_trunc('day', app_now(), 'UTC') + make_interval(days => days, hours => 11), total_seats,
       '{"CAT1": 350.00, "CAT2": 200.00, "CAT3": 120.00}'
FROM (VALUES
    ('e0e0e0e0-0000-0000-0000-000000000001', 'Taylor Swift Eras Tour SG', 'HALL-A', 60, 100),
    ('e0e0e0e0-0000-0000-0000-000000000002', 'Coldplay Music of the Spheres SG', 'HALL-B', 90, 5000),
    ('e0e0e0e0-0000-0000-0000-000000000003', 'JJ Lin Sanctuary Finale SG', 'HALL-A', -30, 20)
) AS seed (event_id, name, hall_id, days, total_seats)
ON CONFLICT DO NOTHING;
