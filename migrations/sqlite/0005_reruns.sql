-- A run that begins with what another recorded begins at that one's time, as long as its journal has not begun anew: the
-- time, and the number of the first entry that goes with it.
ALTER TABLE runs ADD COLUMN began_ms INTEGER;
ALTER TABLE runs ADD COLUMN began_base INTEGER;
