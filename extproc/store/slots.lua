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
