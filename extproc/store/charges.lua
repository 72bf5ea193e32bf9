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
