-- What an operator wants to know of a node: where its API is, and whether it was asked to drain.
ALTER TABLE nodes ADD COLUMN url TEXT NOT NULL DEFAULT '';
ALTER TABLE nodes ADD COLUMN draining INTEGER NOT NULL DEFAULT 0;
