-- What may be asked of the script: a function each; what it takes and answers stands above it.

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
