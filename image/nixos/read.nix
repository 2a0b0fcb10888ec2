# Files that systemd reads, as Nix values, so that one file serves Debian and NixOS alike. Builtins only.
let
  inherit (builtins)
    attrNames
    elemAt
    filter
    foldl'
    head
    isString
    length
    listToAttrs
    mapAttrs
    match
    pathExists
    readDir
    readFile
    split
    tail
    ;

  # What is neither empty nor a comment.
  lines =
    file:
    filter (line: isString line && match "[[:space:]]*([#;].*)?" line == null) (split "\n" (readFile file));

  heading = line: match "\\[(.+)]" line;

  # One line more: a heading begins a section, all else belongs to the last one. A key may come again.
  grow =
    file: read: line:
    let
      section = heading line;
      pair = match "([^=]+)=(.*)" line;
      key = elemAt pair 0;
      inside = read.sections.${read.at} or { };
    in
    if section != null then
      read // { at = head section; }
    else if pair == null then
      throw "${toString file}: `${line}` is neither a section nor a setting"
    else
      read
      // {
        sections = read.sections // {
          ${read.at} = inside // {
            ${key} = (inside.${key} or [ ]) ++ [ (elemAt pair 1) ];
          };
        };
      };

  # A key that came once is a string, else a list.
  plain = mapAttrs (_: mapAttrs (_: values: if length values == 1 then head values else values));

  ini =
    file:
    plain
      (foldl' (grow file) {
        at = "";
        sections = { };
      } (lines file)).sections;

  # The names in a folder that end so.
  named = ending: folder: filter (name: match ".*\\.${ending}" name != null) (attrNames (readDir folder));
  stem = ending: name: head (match "(.*)\\.${ending}" name);
in
{
  inherit ini lines;

  # Every file of a folder that ends so, under its name without that.
  folder =
    ending: folder:
    listToAttrs (
      map (name: {
        name = stem ending name;
        value = ini (folder + "/${name}");
      }) (named ending folder)
    );

  # The names that stand in a folder as `<unit>.wants` or `<unit>.requires`; none if it is not there.
  members = folder: if pathExists folder then attrNames (readDir folder) else [ ];

  # A setting as a list of words, as in `WantedBy=a b`.
  words = text: filter (word: isString word && word != "") (split "[[:space:]]+" text);

  inherit head tail;
}
