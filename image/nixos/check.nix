# Whether a module of this folder sets only options that there are, to values of their kind, without nixpkgs at hand:
#
#   nix-instantiate --eval --strict --json check.nix --argstr module ./appliance.nix
#
# gives a list of what is wrong. What options there are stands in options.nix, with the kind of their values; they were
# looked up in nixpkgs' source. This knows as much of the module system as our modules use: imports, mkIf, mkMerge,
# mkForce, mkDefault, options of their own.
{ module }:

let
  inherit (builtins)
    all
    attrNames
    concatLists
    concatMap
    concatStringsSep
    elemAt
    filter
    foldl'
    functionArgs
    genList
    hasAttr
    head
    intersectAttrs
    isAttrs
    isBool
    isFunction
    isInt
    isList
    isPath
    isString
    length
    listToAttrs
    map
    mapAttrs
    match
    removeAttrs
    replaceStrings
    split
    substring
    stringLength
    tail
    typeOf
    ;

  known = import ./options.nix;

  # Values that the module system looks into.
  marked = kind: value: isAttrs value && (value._type or null) == kind;
  through = content: { _type = "through"; contents = [ content ]; };

  letters = text: genList (at: substring at 1 text) (stringLength text);
  lib = {
    mkIf = _: through;
    mkMerge = contents: { _type = "through"; inherit contents; };
    mkForce = through;
    mkDefault = through;
    mkOption = option: option // { _type = "option"; };
    mkEnableOption = description: { _type = "option"; inherit description; };
    literalExpression = text: text;
    types = {
      bool = isBool;
      package = isAttrs;
    };
    licenses.asl20 = { };
    platforms.linux = [ ];
    optionalAttrs = condition: set: if condition then set else { };
    filterAttrs =
      keep: set:
      listToAttrs (
        map (name: { inherit name; value = set.${name}; }) (filter (name: keep name set.${name}) (attrNames set))
      );
    nameValuePair = name: value: { inherit name value; };
    mapAttrs' = change: set: listToAttrs (map (name: change name set.${name}) (attrNames set));
    inherit mapAttrs;
    toUpper = replaceStrings (letters "abcdefghijklmnopqrstuvwxyz") (letters "ABCDEFGHIJKLMNOPQRSTUVWXYZ");
  };

  # A package that can stand in a path, whatever its name.
  package = name: {
    type = "derivation";
    outPath = "/nix/store/${name}";
  };
  pkgs =
    listToAttrs (map (name: { inherit name; value = package name; }) known.packages)
    // {
      stdenv.hostPlatform.efiArch = "x64";
      callPackage = _: _: package "called";
      writeText = name: text: if isString text then package name else throw "${name} is no text";
    };

  given = {
    inherit lib pkgs;
    modulesPath = "/upstream";
    options.image.repart = { };
    config.services.berth = {
      enable = true;
      openFirewall = true;
      package = package "berth";
    };
  };

  # A module and those that it imports; upstream's are known by name alone.
  load =
    path:
    let
      value = import path;
      module = if isFunction value then value (intersectAttrs (functionArgs value) given) else value;
      ours = filter isPath (module.imports or [ ]);
      upstream = filter (one: !(isPath one || hasAttr (toString one) known.upstream)) (module.imports or [ ]);
    in
    [
      {
        settings = module.config or (removeAttrs module [ "imports" "options" ]);
        declared = module.options or { };
        unknown = map (one: "imports: nixpkgs has no ${toString one}") upstream;
      }
    ]
    ++ concatMap load ours;
  modules = load module;

  # `a.<name>.b` of the list stands for any name there; a kind of `any` or `set` covers what is below.
  patterns = map (name: {
    inherit name;
    parts = filter isString (split "\\." name);
    kind = known.options.${name};
  }) (attrNames known.options);
  agree =
    count: path: pattern:
    all (at: match "<.*>" (elemAt pattern.parts at) != null || elemAt pattern.parts at == elemAt path at) (
      genList (at: at) count
    );
  covers =
    path: pattern:
    length pattern.parts == length path && agree (length path) path pattern
    || length pattern.parts < length path
      && (pattern.kind == "any" || pattern.kind == "set")
      && agree (length pattern.parts) path pattern;
  leadsOn = path: pattern: length pattern.parts > length path && agree (length path) path pattern;

  fits = {
    any = _: true;
    bool = isBool;
    int = isInt;
    text = value: isString value || isPath value || isAttrs value && value ? outPath;
    list = isList;
    set = isAttrs;
  };

  ownAt = path: set: if path == [ ] then set else if isAttrs set && set ? ${head path} then ownAt (tail path) set.${head path} else null;
  own = path: filter (found: found != null) (map (one: ownAt path one.declared) modules);

  judge =
    path: value:
    let
      name = concatStringsSep "." path;
      exact = filter (covers path) patterns;
      kind = (head exact).kind;
      below = length (head exact).parts < length path;
    in
    if marked "through" value then
      concatMap (judge path) value.contents
    else if all (marked "option") (own path) && own path != [ ] then
      [ ]
    else if exact != [ ] then
      (if below || fits.${kind} value then [ ] else [ "${name}: wants ${kind} and is given ${typeOf value}" ])
    else if isAttrs value && !(value ? outPath) && (path == [ ] || own path != [ ] || filter (leadsOn path) patterns != [ ]) then
      concatLists (map (key: judge (path ++ [ key ]) value.${key}) (attrNames value))
    else
      [ "${name}: nixpkgs has no such option" ];
in
concatMap (one: one.unknown ++ judge [ ] one.settings) modules
