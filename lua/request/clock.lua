#!lua flags=no-writes
-- clock: what the time is where the shard is.
--
-- The server's own clock, which every act goes by. The shard need not be built.
--
-- KEYS
--   epoch_key            says which server of a cluster is asked; it is not read
-- ARGV
-- RETURNS
--   seconds              since the epoch
--   micros               of the second that has begun
-- ERRORS
--   INVALID arguments    the wrong number of keys or arguments
-- INVARIANT
--   nothing is read or written

local epoch_key = KEYS[1]

if #KEYS ~= 1 or #ARGV ~= 0 then return redis.error_reply('INVALID arguments') end
return redis.call('TIME')
