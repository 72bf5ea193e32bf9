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
