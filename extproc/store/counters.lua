-- Counters and reservations as a store keeps them: every call is atomic, and writes at its end or not at all.
--
-- The arithmetic is that of extproc/policy/counters/, where its reasons are; tests/store/ runs one suite
-- over both and compares them call by call. Numbers are doubles: whole ones below 2^53 are exact.
--
--   KEYS[1]  {prefix}:version   numbers every change; without it the counters were lost
--   ARGV     command, "{prefix}:", time in microseconds or "" for the server's own, what the command takes
--
--   {prefix}:c:NAME   a counter, see `load` and `save`
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

-- Amounts of a bucket are pairs: whole units, and a rest below per_us of one more.

-- Whole units and rest of amount * us / per_us, for us < per_us < 2^42 and amount < 2^53.
local function portion(amount, us, per_us)
  local product = amount * us
  if product < EXACT then
    local rest = fmod(product, per_us)
    return (product - rest) / per_us, rest
  end
  -- By limbs of ten bits: no sum below reaches 2^11 * per_us.
  local limbs, count = {}, 0
  while amount > 0 do
    count = count + 1
    limbs[count] = fmod(amount, 1024)
    amount = (amount - limbs[count]) / 1024
  end
  local whole, rest = 0, 0
  for place = count, 1, -1 do
    local sum = rest * 1024 + limbs[place] * us
    rest = fmod(sum, per_us)
    whole = whole * 1024 + (sum - rest) / per_us
  end
  return whole, rest
end

local function is_less(whole, rest, than, than_rest)
  return whole < than or (whole == than and rest < than_rest)
end

local function minus(whole, rest, less, less_rest, per_us)
  if rest < less_rest then
    return whole - less - 1, rest + per_us - less_rest
  end
  return whole - less, rest - less_rest
end

-- What may come back of a bucket: the least in use since each reservation (extproc/policy/counters/lows.py).
-- An entry is four numbers: the last reservation it stands for, how many, and the least, a pair. Beyond
-- `MOST_LOWS` neighbours share one, at the lower of their two: what comes back is then never too much, and
-- less only where the bucket was all but whole.

local LOW_BYTES, MOST_LOWS = 32, 512

local function look(c)
  if c.used == 0 and c.rest == 0 then
    -- Whoever has a reservation open has nothing to get back any more.
    c.lows, c.first = '', 0
  elseif c.lows ~= '' then
    local at = #c.lows - LOW_BYTES + 1
    local last, members, whole, rest = unpack_struct('<dddd', c.lows, at)
    if is_less(c.used, c.rest, whole, rest) then
      c.lows = sub(c.lows, 1, at - 1) .. pack('<dddd', last, members, c.used, c.rest)
    end
  end
end

local function thinned(lows)
  local kept = {}
  -- The newer half stays as it is: most reservations are settled soon.
  local middle = math.floor(#lows / LOW_BYTES / 4) * 2 * LOW_BYTES
  for at = 1, middle, 2 * LOW_BYTES do
    local _, members, whole, rest = unpack_struct('<dddd', lows, at)
    local last, more, other, other_rest = unpack_struct('<dddd', lows, at + LOW_BYTES)
    if is_less(other, other_rest, whole, rest) then
      whole, rest = other, other_rest
    end
    kept[#kept + 1] = pack('<dddd', last, members + more, whole, rest)
  end
  return table.concat(kept) .. sub(lows, middle + 1)
end

local function open_low(c, number)
  if c.first == 0 then
    c.first = number
  end
  c.lows = c.lows .. pack('<dddd', number, 1, c.used, c.rest)
  if #c.lows > MOST_LOWS * LOW_BYTES then
    c.lows = thinned(c.lows)
  end
end

-- The place of the entry that stands for a reservation, from 0; none where its bucket was whole since.
local function place_of(c, number)
  if c.first == 0 or number < c.first then
    return nil
  end
  local low, high = 0, #c.lows / LOW_BYTES
  while low < high do
    local middle = math.floor((low + high) / 2)
    if unpack_struct('<d', c.lows, middle * LOW_BYTES + 1) < number then
      low = middle + 1
    else
      high = middle
    end
  end
  return low < #c.lows / LOW_BYTES and low or nil
end

-- End a reservation: how much of what it returns the bucket still lacks.
local function close_low(c, number, returned)
  local place = place_of(c, number)
  if not place then
    return 0, 0
  end
  local at, per_us = place * LOW_BYTES + 1, c.per_us
  local count = #c.lows / LOW_BYTES - place
  local numbers = { unpack_struct('<' .. rep('d', 4 * count), c.lows, at) }
  local whole, rest = returned, 0
  for i = 3, 4 * count, 4 do
    if is_less(numbers[i], numbers[i + 1], whole, rest) then
      whole, rest = numbers[i], numbers[i + 1]
    end
    numbers[i], numbers[i + 1] = minus(numbers[i], numbers[i + 1], whole, rest, per_us)
  end
  local head, from = sub(c.lows, 1, at - 1), 1
  numbers[2] = numbers[2] - 1
  if numbers[2] == 0 then
    from, count = 5, count - 1
    if head ~= '' then
      local last, members, before, before_rest = unpack_struct('<dddd', head, #head - LOW_BYTES + 1)
      if is_less(numbers[3], numbers[4], before, before_rest) then
        head = sub(head, 1, #head - LOW_BYTES) .. pack('<dddd', last, members, numbers[3], numbers[4])
      end
    end
  end
  c.lows = head .. pack('<' .. rep('d', 4 * count), unpack(numbers, from, from + 4 * count - 1))
  return whole, rest
end

-- Algorithms. Each reads and writes what follows a counter's head, and answers what a charge wants to know.

local function refill(c)
  if now <= c.at then
    return
  end
  local elapsed = now - c.at
  c.at = now
  local us = fmod(elapsed, c.per_us)
  local back = c.amount * ((elapsed - us) / c.per_us)
  local rest = 0
  if back <= c.used then
    local more
    more, rest = portion(c.amount, us, c.per_us)
    back = back + more
  end
  if is_less(c.used, c.rest, back, rest) then
    c.used, c.rest = 0, 0
  else
    c.used, c.rest = minus(c.used, c.rest, back, rest, c.per_us)
  end
end

local bucket = {
  read = function(c, text)
    if text then
      c.used, c.rest, c.at, c.amount, c.per_us = unpack_struct('<ddddd', text, 41)
      c.lows = sub(text, 81)
    else
      c.used, c.rest, c.at, c.lows = 0, 0, 0, ''
    end
  end,
  begin = function(c, window)
    c.amount, c.per_us = window[2], window[3]
  end,
  -- What was used comes back at the old rate until an edit, at the new one from then on.
  adopt = function(c, window)
    refill(c)
    local is_edited = c.amount ~= window[2]
    c.amount = window[2]
    return is_edited
  end,
  used = function(c)
    return c.used + (c.rest > 0 and 1 or 0)
  end,
  wait = function(c, _, free)
    if c.used < free then
      return 0, 0
    end
    return c.used - free, c.rest
  end,
  reset_wait = function(c)
    return c.used, c.rest
  end,
  behind = function(c)
    return max(0, c.at - now)
  end,
  take = function(c, _, amount, number)
    look(c)
    c.used = c.used + amount
    open_low(c, number)
    return 0
  end,
  settle = function(c, _, ticket, returned, owed)
    refill(c)
    look(c)
    local whole, rest = close_low(c, ticket.number, returned)
    c.used, c.rest = minus(c.used, c.rest, whole, rest, c.per_us)
    c.used = min(c.used + owed, EXACT - 1)
  end,
  forget = function(c)
    c.used, c.rest, c.lows, c.first = 0, 0, '', 0
  end,
  is_whole = function(c)
    local later = { used = c.used, rest = c.rest, at = c.at, amount = c.amount, per_us = c.per_us }
    refill(later)
    return later.used == 0 and later.rest == 0
  end,
  text = function(c)
    return pack('<ddddd', c.used, c.rest, c.at, c.amount, c.per_us), c.lows
  end,
  lasts_us = function(c)
    return (c.used + 1) / c.amount * c.per_us + max(0, c.at - now)
  end,
}

-- Slots: begins and amounts in two lists, by rising begin; none holds 0. Before them a number that the
-- algorithm needs, and the end of the last slot that was forgotten, which is never used again.

local function read_slots(c, text)
  c.begins, c.amounts, c.last, c.forgotten = {}, {}, 0, 0
  if text then
    local numbers = { unpack_struct('<' .. rep('d', (#text - 40) / 8), text, 41) }
    c.last, c.forgotten = numbers[1], numbers[2]
    for i = 1, (#numbers - 3) / 2 do
      c.begins[i], c.amounts[i] = numbers[2 * i + 1], numbers[2 * i + 2]
    end
  end
end

local function slots_text(c)
  local numbers = { c.last, c.forgotten }
  for i = 1, #c.begins do
    numbers[2 * i + 1], numbers[2 * i + 2] = c.begins[i], c.amounts[i]
  end
  return pack('<' .. rep('d', #numbers), unpack(numbers)), ''
end

local function slot(c, begin)
  for i = #c.begins, 1, -1 do
    if c.begins[i] == begin then
      return c.amounts[i], i
    end
  end
  return 0, nil
end

local function set_slot(c, begin, amount)
  local _, place = slot(c, begin)
  if amount > 0 and place then
    c.amounts[place] = amount
  elseif amount > 0 then
    place = #c.begins + 1
    while place > 1 and c.begins[place - 1] > begin do
      place = place - 1
    end
    table.insert(c.begins, place, begin)
    table.insert(c.amounts, place, amount)
  elseif place then
    table.remove(c.begins, place)
    table.remove(c.amounts, place)
  end
end

local function add_to_slot(c, begin, amount, number)
  if c.first == 0 then
    c.first = number
  end
  if amount > 0 then
    set_slot(c, begin, slot(c, begin) + amount)
  end
end

local function replace_in_slot(c, ticket, returned, owed)
  local used = slot(c, ticket.begin)
  if c.first ~= 0 and c.first <= ticket.number then
    used = max(0, used - returned)
  end
  set_slot(c, ticket.begin, min(used + owed, EXACT - 1))
end

local function forget_slots(c)
  c.begins, c.amounts, c.first = {}, {}, 0
end

local function nothing()
  return 0
end

local function nothing_changed()
  return false
end

local function width_us(c)
  return ceil(c.last / 60)
end

local function counts_until(c, begin)
  return begin + width_us(c) + c.last
end

local function forget_old_slots(c)
  for i = #c.begins, 1, -1 do
    if counts_until(c, c.begins[i]) <= now then
      c.forgotten = max(c.forgotten, c.begins[i] + width_us(c))
      table.remove(c.begins, i)
      table.remove(c.amounts, i)
    end
  end
end

local function used_in_slots(c)
  local sum = 0
  for i = 1, #c.begins do
    if counts_until(c, c.begins[i]) > now then
      sum = sum + c.amounts[i]
    end
  end
  return sum
end

local sliding = {
  read = read_slots,
  begin = function(c, window)
    c.last = window[2]
  end,
  adopt = nothing_changed,
  used = used_in_slots,
  wait = function(c, _, free)
    local lacking, wait = used_in_slots(c) - free, 0
    for i = 1, #c.begins do
      if lacking <= 0 then
        break
      end
      local ends = counts_until(c, c.begins[i])
      if ends > now then
        lacking, wait = lacking - c.amounts[i], ends - now
      end
    end
    return wait, 0
  end,
  reset_wait = function(c)
    local newest = c.begins[#c.begins]
    return newest and max(0, counts_until(c, newest) - now) or 0, 0
  end,
  behind = nothing,
  take = function(c, _, amount, number)
    forget_old_slots(c)
    local begin = max(c.forgotten, now - fmod(now, width_us(c)))
    add_to_slot(c, begin, amount, number)
    return begin
  end,
  settle = function(c, _, ticket, returned, owed)
    forget_old_slots(c)
    if counts_until(c, ticket.begin) > now then
      replace_in_slot(c, ticket, returned, owed)
    end
  end,
  forget = forget_slots,
  is_whole = function(c)
    local newest = c.begins[#c.begins]
    return not newest or counts_until(c, newest) <= now
  end,
  text = slots_text,
  lasts_us = function(c)
    return counts_until(c, c.begins[#c.begins]) - now
  end,
}

-- A calendar window is its size and the edges of three periods, the middle one ours if clocks agree.
local function period(window)
  for place = 4, 2, -1 do
    if window[place] <= now and now < window[place + 1] then
      return place
    end
  end
  return nil
end

local function remember(c, window, begin)
  if not select(2, slot(c, begin)) then
    return
  end
  for place = 2, 4 do
    if window[place] == begin then
      c.last = max(c.last, window[place + 1])
    end
  end
  if #c.begins > 4 then
    local oldest = c.begins[1] == begin and 2 or 1
    table.remove(c.begins, oldest)
    table.remove(c.amounts, oldest)
  end
end

local calendar = {
  read = read_slots,
  begin = nothing,
  adopt = nothing_changed,
  covers = period,
  used = function(c, window)
    local place = period(window)
    return place and slot(c, window[place]) or 0
  end,
  wait = function(c, window, free)
    local place = period(window)
    if not place or slot(c, window[place]) <= free then
      return 0, 0
    end
    for later = place + 1, 5 do
      if slot(c, window[later]) <= free then
        return window[later] - now, 0
      end
    end
    return window[5] - now, 0
  end,
  reset_wait = function(c, window)
    local place = period(window)
    if not place or slot(c, window[place]) == 0 then
      return 0, 0
    end
    return window[place + 1] - now, 0
  end,
  behind = nothing,
  take = function(c, window, amount, number)
    local begin = window[period(window)]
    add_to_slot(c, begin, amount, number)
    remember(c, window, begin)
    return begin
  end,
  settle = function(c, window, ticket, returned, owed)
    replace_in_slot(c, ticket, returned, owed)
    remember(c, window, ticket.begin)
  end,
  forget = function(c)
    forget_slots(c)
    c.last = 0
  end,
  -- A clock that is behind may still ask for the last period.
  is_whole = function(c)
    return #c.begins == 0 or now >= c.last + DAY_US
  end,
  text = slots_text,
  lasts_us = function(c)
    return c.last + DAY_US - now
  end,
}

-- Leases are a sorted set by when they end; each counts one.
local leases = {
  read = function(c)
    c.held = call('ZCOUNT', LEASE .. c.name, '(' .. format('%.0f', now), '+inf')
  end,
  begin = nothing,
  adopt = nothing_changed,
  used = function(c)
    return c.held
  end,
  wait = function(c, _, free)
    return c.held <= free and 0 or ASK_AGAIN_US, 0
  end,
  reset_wait = function(c)
    return c.held == 0 and 0 or ASK_AGAIN_US, 0
  end,
  behind = nothing,
  take = function(c, window, amount)
    if amount > 0 then
      c.held = c.held + 1
      c.lease = now + window[2]
      c.lease_ms = ceil(window[2] / 1000) + MINUTE_MS
    end
    return 0
  end,
  settle = function(c)
    c.ends = true
  end,
  forget = function(c)
    c.is_forgotten, c.held = true, 0
  end,
  is_whole = function()
    return true
  end,
  text = function()
    return '', ''
  end,
  lasts_us = nothing,
}

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

-- Charges: flags, amount, minimum, algorithm, and a window of five numbers, its size first.

local CHARGE_BYTES = 72

local function read_charge(text, number)
  local flags, amount, minimum, algorithm, a, b, c, d, e =
    unpack_struct('<ddddddddd', text, (number - 1) * CHARGE_BYTES + 1)
  return {
    is_enforced = flags == 1 or flags == 3,
    must_count = flags >= 2,
    amount = amount,
    minimum = minimum,
    algorithm = algorithm,
    window = { a, b, c, d, e },
  }
end

local function size(c, charge)
  return charge.window[1] + (now < c.until_us and c.extra or 0)
end

local function wait_for(c, charge, held)
  local free = held - charge.minimum
  if free < 0 then
    return NEVER, 0
  end
  return c.does.wait(c, charge.window, free)
end

-- What a charge finds: used, left, and the two waits that an override makes possible.
local function find(c, charge)
  local found = { used = c.does.used(c, charge.window), size = size(c, charge) }
  found.left = found.size - found.used
  found.fits = charge.minimum <= found.left
  found.wait, found.wait_rest, found.other, found.other_rest = 0, 0, 0, 0
  if not found.fits then
    found.wait, found.wait_rest = wait_for(c, charge, charge.window[1])
    if now < c.until_us then
      found.other, found.other_rest = wait_for(c, charge, found.size)
    end
  end
  return found
end

local GRANTED, UNAVAILABLE = 1, 2
local OUTCOME = '<ddddddddddddd'
local OUTCOME_BYTES = 104
local NOBODY_KNOWS = pack(OUTCOME, UNAVAILABLE, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)

local function outcome(c, charge, found, reserved, flags)
  local does = c.does
  local reset, reset_rest = does.reset_wait(c, charge.window)
  return pack(
    OUTCOME, flags, reserved, found.used, max(0, found.left - reserved), found.size, does.behind(c),
    found.wait, found.wait_rest, found.other, found.other_rest, max(0, c.until_us - now), reset, reset_rest
  )
end

-- What `reserve` takes; reading takes it from nobody.
local function take(item, number)
  local charge = item.charge
  local reserved = max(0, min(charge.amount, item.found.left))
  return reserved, item.counter.does.take(item.counter, charge.window, reserved, number)
end

local function values_of(names, first, more)
  local keys = { unpack(more) }
  for i = first, #names do
    keys[#keys + 1] = COUNTER .. names[i]
  end
  return call('MGET', unpack(keys))
end

-- Each charge with its counter, and what it finds there.
local function assess(charges, first, values, offset)
  local all = {}
  for i = 1, #charges / CHARGE_BYTES do
    local charge = read_charge(charges, i)
    local c = load(ARGV[first + i - 1], values[offset + i], charge.algorithm, charge.window)
    local item = { charge = charge, counter = c }
    item.is_unavailable = c.does.covers ~= nil and not c.does.covers(charge.window)
    item.is_changed = c.does.adopt(c, charge.window)
    item.found = find(c, charge)
    all[i] = item
  end
  return all
end

local function remember_decision(key, record, ttl_ms)
  call('SET', key, cmsgpack.pack(record), 'PX', format('%.0f', ttl_ms))
end

local commands = {}

local function is_taken(all)
  for _, item in ipairs(all) do
    local charge = item.charge
    if charge.is_enforced and not (item.found.fits and not (item.is_unavailable and charge.must_count)) then
      return false
    end
  end
  return true
end

-- id, charges, names: outcomes, and the counters that changed, "" for those that did not.
function commands.reserve()
  local id, charges = ARGV[4], ARGV[5]
  local key = RESERVATION .. id
  local values = values_of(ARGV, 6, { KEYS[1], key })
  if not values[1] then
    return {}
  end
  if values[2] then
    local known = cmsgpack.unpack(values[2])
    return { known[1] == GONE and rep(NOBODY_KNOWS, #charges / CHARGE_BYTES) or known[2] }
  end
  local all = assess(charges, 6, values, 2)
  local taken = is_taken(all)
  local outcomes, tickets, record = {}, {}, { taken and OPEN or CLOSED }
  for i, item in ipairs(all) do
    local c, charge, found = item.counter, item.charge, item.found
    local reserved, begin, flags = 0, 0, found.fits and GRANTED or 0
    if item.is_unavailable then
      flags = UNAVAILABLE
    elseif taken then
      reserved, begin = take(item, next_number())
      item.is_changed = true
    end
    outcomes[i] = outcome(c, charge, found, reserved, flags)
    tickets[i] = pack('<dd', number_of_change or 0, begin)
    record[4 + i] = c.name
  end
  record[2] = table.concat(outcomes)
  if taken then
    record[3], record[4] = charges, table.concat(tickets)
    remember_decision(key, record, OPEN_MS)
  else
    remember_decision(key, { CLOSED, record[2] }, MINUTE_MS)
  end
  local answer = { record[2] }
  for i, item in ipairs(all) do
    answer[i + 1] = ''
    if item.counter.lease then
      save_leases(item.counter, id)
    elseif item.is_changed and item.charge.algorithm ~= LEASES then
      answer[i + 1] = save(item.counter, not taken)
    end
  end
  return answer
end

-- id (of nobody), charges, names: outcomes.
function commands.read()
  local values = values_of(ARGV, 6, { KEYS[1] })
  if not values[1] then
    return {}
  end
  local outcomes = {}
  for i, item in ipairs(assess(ARGV[5], 6, values, 1)) do
    local reserved, flags = 0, item.found.fits and GRANTED or 0
    if item.is_unavailable then
      flags = UNAVAILABLE
    elseif item.found.fits or not item.charge.is_enforced then
      reserved = take(item, item.counter.version + 1)
    end
    outcomes[i] = outcome(item.counter, item.charge, item.found, reserved, flags)
  end
  return { table.concat(outcomes) }
end

local function open_reservation(text)
  local record = text and cmsgpack.unpack(text)
  return record and record[1] == OPEN and record or nil
end

local function amounts_by_name()
  local amounts = {}
  for i = 5, #ARGV - 1, 2 do
    amounts[ARGV[i]] = tonumber(ARGV[i + 1])
  end
  return amounts
end

-- id, then names and amounts in turn: 1 if this was the first settlement, then names and counters in turn.
function commands.settle()
  local key, amounts = RESERVATION .. ARGV[4], amounts_by_name()
  local found = call('MGET', KEYS[1], key)
  if not found[1] then
    return {}
  end
  local record = open_reservation(found[2])
  if not record then
    if not found[2] then
      -- A reservation that arrives after its settlement must not stay.
      remember_decision(key, { GONE }, MINUTE_MS)
    end
    return { 0 }
  end
  local outcomes, charges, tickets = record[2], record[3], record[4]
  local values = #record > 4 and values_of(record, 5, {}) or {}
  local touched = {}
  for i = 5, #record do
    local number, name = i - 4, record[i]
    local flags, reserved = unpack_struct('<dd', outcomes, (number - 1) * OUTCOME_BYTES + 1)
    if flags < UNAVAILABLE then
      local charge = read_charge(charges, number)
      local c = load(name, values[number], charge.algorithm, charge.window)
      local ticket = {}
      ticket.number, ticket.begin = unpack_struct('<dd', tickets, (number - 1) * 16 + 1)
      local spent = amounts[name] or 0
      local owed = flags == GRANTED and max(0, spent - reserved) or 0
      c.does.settle(c, charge.window, ticket, max(0, reserved - spent), owed)
      touched[#touched + 1] = c
    end
  end
  remember_decision(key, { CLOSED, outcomes }, MINUTE_MS)
  local answer = { 1 }
  for _, c in ipairs(touched) do
    if c.algorithm == LEASES then
      save_leases(c, ARGV[4])
    else
      answer[#answer + 1] = c.name
      answer[#answer + 1] = save(c)
    end
  end
  return answer
end

-- ids: keeps the leases of open reservations that have not ended.
function commands.renew()
  if not call('GET', KEYS[1]) then
    return {}
  end
  for i = 4, #ARGV do
    local record = open_reservation(call('GET', RESERVATION .. ARGV[i]))
    for place = 5, record and #record or 0 do
      local charge = read_charge(record[3], place - 4)
      local key = LEASE .. record[place]
      local ends = charge.algorithm == LEASES and call('ZSCORE', key, ARGV[i])
      if ends and tonumber(ends) > now then
        call('ZADD', key, format('%.0f', now + charge.window[2]), ARGV[i])
        call('PEXPIRE', key, format('%.0f', ceil(charge.window[2] / 1000) + MINUTE_MS))
      end
    end
  end
  return { 1 }
end

-- The counter of the one charge that an administrator means; none where counters were lost.
local function only_one()
  local values, charge = call('MGET', KEYS[1], COUNTER .. ARGV[5]), read_charge(ARGV[4], 1)
  return values[1] and load(ARGV[5], values[2], charge.algorithm, charge.window)
end

-- charge, name: the counter as it is now, "" if there is none.
function commands.reset()
  local c = only_one()
  if not c then
    return {}
  end
  c.does.forget(c)
  save_leases(c, '')
  return { c.version > 0 and save(c) or '' }
end

-- charge, name, extra, until_us: the counter as it is now.
function commands.override()
  local c = only_one()
  if not c then
    return {}
  end
  c.extra, c.until_us = tonumber(ARGV[6]), tonumber(ARGV[7])
  if c.extra == 0 then
    c.until_us = 0
  end
  return { save(c) }
end

-- Take up a counter that the ledger knows, unless there is a newer one; answers its version.
local function seed(name, text)
  local algorithm, version, extra, until_us = unpack_struct('<dddd', text)
  local known = call('GET', COUNTER .. name)
  if known and unpack_struct('<d', known, 9) >= version then
    return version
  end
  local does = ALGORITHMS[algorithm]
  if not does then
    call('DEL', COUNTER .. name)
    return version
  end
  local c = load(name, text, algorithm)
  local head = pack('<ddddd', algorithm, version, extra, until_us, 0)
  local body = does.text(c)
  local lasts_us = does.is_whole(c) and 0 or does.lasts_us(c)
  put(name, head, body, '', max(lasts_us, until_us - now))
  return version
end

-- names and counters in turn.
function commands.seed()
  if not call('GET', KEYS[1]) then
    return {}
  end
  local newest = 0
  for i = 4, #ARGV - 1, 2 do
    newest = max(newest, seed(ARGV[i], ARGV[i + 1]))
  end
  if newest > tonumber(call('GET', KEYS[1])) then
    call('SET', KEYS[1], format('%.0f', newest))
  end
  return { 1 }
end

-- token, milliseconds: 1 for whoever may put counters back, 2 if nobody need.
function commands.lock()
  if call('GET', KEYS[1]) then
    return { 2 }
  end
  return { call('SET', LOCK, ARGV[4], 'NX', 'PX', ARGV[5]) and 1 or 0 }
end

-- token, milliseconds, names and counters in turn: 1 while the lock is held.
function commands.restore()
  if call('GET', LOCK) ~= ARGV[4] then
    return { 0 }
  end
  call('PEXPIRE', LOCK, ARGV[5])
  for i = 6, #ARGV - 1, 2 do
    seed(ARGV[i], ARGV[i + 1])
  end
  return { 1 }
end

-- token, the newest version put back: 1 if the counters are back.
function commands.open()
  if call('GET', LOCK) ~= ARGV[4] then
    return { 0 }
  end
  -- A time, so that what is new is newer than what a ledger knows of counters that nobody put back.
  call('SET', KEYS[1], format('%.0f', max(now, tonumber(ARGV[5]))))
  call('DEL', LOCK)
  return { 1 }
end

-- The server's maxmemory-policy, where it says so.
function commands.look()
  if not call('GET', KEYS[1]) then
    return {}
  end
  return { 1, string.match(call('INFO', 'memory'), 'maxmemory_policy:(%S+)') or '' }
end

return commands[ARGV[1]]()
