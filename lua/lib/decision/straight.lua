-- The straight way: one charge on plain terms is charged with the same reply, the same writes and the same entry as on the long
-- way, in fewer steps. It refuses nothing: what is not plainly allowed is left to the long way, and nothing has been written then.

-- The packed reply to a charge that is plainly allowed, once all of it is written; nil where nothing was done. `keys` are those
-- of consume and record.
local function straight_debit(keys, feature, quantity, path, real_ms, epoch, body)
  local walk = walk_acts.of(keys, feature, quantity, path, real_ms, false)
  if not walk then return nil end
  local usable, parts, moved = walk.usable, walk.parts, ''
  for n = 1, #parts, 2 do
    moved = (n == 1 and '' or moved .. ' ') .. usable.grants[parts[n]] .. '=' .. digits(parts[n + 1])
  end
  redis.call('XADD', keys[5], '*', 'k', 'debit', 'b', body, 'at', walk.at, 'q', quantity, 'c', usable and walk.cost or 0,
    'u', 0, 's', walk.cost, 'm', moved, 'w', walk.currency, 'e', epoch)
  for n = 1, #parts, 2 do redis.call('HINCRBY', keys[4], usable.fields[parts[n]], -parts[n + 1]) end
  walk_acts.write(walk, keys[3])
  return walk_acts.reply(walk, 0, '')
end

return straight_debit
