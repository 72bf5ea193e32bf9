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
