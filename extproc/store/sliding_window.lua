-- A sliding window is its size and its length, of which a slot is a sixtieth.
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
