-- What a pure function has made before: the library stays in the server, so what was taken apart once need not be again.
--
-- Nothing may change what it was handed. A memo never grows above `most` values: then it forgets them all and begins anew.
local function memo(make, most)
  local known, count = {}, 0
  return function(from)
    local made = known[from]
    if made == nil then
      made = make(from)
      if count == most then known, count = {}, 0 end
      known[from], count = made, count + 1
    end
    return made
  end
end
