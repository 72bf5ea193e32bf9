-- Each algorithm reads and writes what follows a counter's head, and answers what a charge wants to know.
local ALGORITHMS = { [BUCKET] = bucket, [SLIDING] = sliding, [CALENDAR] = calendar, [LEASES] = leases }

-- Changes are numbered over all counters, so that numbers go on rising in counters that were forgotten.
-- They are the versions of counters, and the numbers of reservations.
local number_of_change

local function next_number()
  number_of_change = number_of_change or call('INCR', KEYS[1])
  return number_of_change
end

-- A counter: algorithm, version, override (extra, until), and the first reservation that is still in what
-- it has used; then what its algorithm keeps.
local function load(name, text, algorithm, window)
  local c = { name = name, algorithm = algorithm, version = 0, extra = 0, until_us = 0, first = 0 }
  if text then
    c.version, c.extra, c.until_us, c.first = unpack_struct('<dddd', text, 9)
  end
  c.does = ALGORITHMS[algorithm]
  c.does.read(c, text)
  if not text then
    c.does.begin(c, window)
  end
  return c
end

local function put(name, head, body, hidden, lasts_us)
  local ttl_ms = min(LONGEST_MS, ceil(max(0, lasts_us) / 1000) + MINUTE_MS)
  call('SET', COUNTER .. name, head .. body .. hidden, 'PX', format('%.0f', ttl_ms))
end

-- Write a counter; answers what the ledger is told of it. One that equals a new one is forgotten, unless its
-- time is to be kept.
local function save(c, is_kept)
  c.version = next_number()
  local does = c.does
  local is_whole = does.is_whole(c)
  if is_whole and c.until_us <= now and not is_kept then
    call('DEL', COUNTER .. c.name)
    return pack('<ddddd', NOTHING, c.version, 0, 0, 0)
  end
  local head = pack('<ddddd', c.algorithm, c.version, c.extra, c.until_us, c.first)
  local body, hidden = does.text(c)
  local lasts_us = is_whole and 0 or does.lasts_us(c)
  put(c.name, head, body, hidden, max(lasts_us, c.until_us - now))
  return head .. body
end

local function save_leases(c, id)
  local key = LEASE .. c.name
  if c.is_forgotten then
    call('DEL', key)
  end
  if c.ends then
    call('ZREM', key, id)
  end
  if c.lease then
    call('ZREMRANGEBYSCORE', key, '-inf', format('%.0f', now))
    call('ZADD', key, format('%.0f', c.lease), id)
    call('PEXPIRE', key, format('%.0f', c.lease_ms))
  end
end
