-- Counters and reservations as a store keeps them: every call is atomic, and writes at its end or not at all.
--
-- One script, in files by noun: this one, an algorithm each, then `counters`, `charges` and `commands`.
--
-- The arithmetic is that of extproc/policy/counters/, where its reasons are; tests/store/ runs one suite
-- over both and compares them call by call. Numbers are doubles: whole ones below 2^53 are exact.
--
--   KEYS[1]  {prefix}:version   numbers every change; without it the counters were lost
--   ARGV     command, "{prefix}:", time in microseconds or "" for the server's own, what the command takes
--
--   {prefix}:c:NAME   a counter, see `load` and `save` in counters.lua
--   {prefix}:l:NAME   the leases of a counter: decision id -> until when
--   {prefix}:r:ID     a reservation: open, closed, denied, or settled before it was made
--   {prefix}:seeding  the lock of who puts lost counters back
--
-- An empty answer says that the counters were lost; nothing was changed then.

local call, pack, unpack_struct = redis.call, struct.pack, struct.unpack
local fmod, max, min, ceil = math.fmod, math.max, math.min, math.ceil
local rep, sub, format = string.rep, string.sub, string.format

local prefix = ARGV[2]
local COUNTER, LEASE, RESERVATION = prefix .. 'c:', prefix .. 'l:', prefix .. 'r:'
local LOCK = prefix .. 'seeding'

local EXACT = 9007199254740992
local DAY_US = 86400000000
local MINUTE_MS = 60000
local OPEN_MS = 24 * 60 * MINUTE_MS
local LONGEST_MS = 100 * 366 * 24 * 60 * MINUTE_MS
local ASK_AGAIN_US = 1000000

local BUCKET, SLIDING, CALENDAR, LEASES, NOTHING = 1, 2, 3, 4, 0
local OPEN, CLOSED, GONE = 1, 2, 3
local NEVER = -1

local now
if ARGV[3] == '' then
  local time = call('TIME')
  now = time[1] * 1000000 + time[2]
else
  now = tonumber(ARGV[3])
end
