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
