"""Random types, and SQL expressions of random values of them, for the test of all types.

Nothing here knows what a value looks like as JSON or how PostgreSQL prints it: values are
expressions that the server evaluates, and what they become is the server's to say.
"""

import random
import struct

STRINGS = ["", " ", "NULL", "null", "a,b", '"', '""', "\\", "\\\\", 'say "hi" \\ now', "(", ")", "(1,2)", "{}",
           "{a,b}", "[1:2]={1,2}", "tab\tline\nreturn\rfeed\f", "\b\x01\x1f\x7f", "ü日本🎉", " lead", "trail ",
           "'quote'", "$$", "%s %d", "a=>b", '"a"=>"b"', ";", "-", "t", "f", "1.50", "1e400", "NaN", "infinity",
           "\u2028\u2029", "\ufeff", "x" * 3000, "</script>", "&lt;", '\\"', '"\\', '\\u0000', "e\u0301", "\u00a0"]


def quote(text):
    """A string constant of SQL, whatever is in it."""
    return "E'" + "".join({"'": "''", "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}
                          .get(c, c if c >= " " else f"\\x{ord(c):02x}") for c in text) + "'"


def name(text):
    return '"' + text.replace('"', '""') + '"'


class Values:
    """Random values of the base types; each method is an expression, to be cast to the type."""

    def __init__(self, rng, version):
        self.rng, self.version = rng, version

    def pick(self, *choices):
        return quote(self.rng.choice(choices))

    def string(self):
        rng = self.rng
        if rng.random() < 0.7:
            return rng.choice(STRINGS)
        alphabet = 'abc\\"\',(){}[] \n\t;=>:ü日🎉\x01' if rng.random() < 0.7 else "abcdefgh"
        return "".join(rng.choice(alphabet) for _ in range(rng.randrange(12)))

    def text(self):
        return quote(self.string())

    def integer(self, bits):
        top = 2 ** (bits - 1)
        return quote(str(self.rng.choice([-top, top - 1, 0, -1, self.rng.randrange(-top, top),
                                          self.rng.randrange(-1000, 1000)])))

    def unsigned(self, bits):
        return quote(str(self.rng.choice([0, 2 ** bits - 1, self.rng.randrange(2 ** bits)])))

    def numeric(self):
        rng = self.rng
        digits = "".join(rng.choice("0123456789") for _ in range(rng.randrange(1, 70)))
        fraction = "".join(rng.choice("0123456789") for _ in range(rng.randrange(40)))
        infinity = ["Infinity", "-Infinity"] if self.version >= 140000 else []
        return self.pick("NaN", *infinity, "0.00", "-0.0", "1e30", "1e-300", "-1.500",
                         *[rng.choice("+-") + digits + "." + fraction + "0"] * 8)

    def real(self):
        bits = struct.unpack("<f", struct.pack("<I", self.rng.getrandbits(32)))[0]
        return self.pick("NaN", "Infinity", "-Infinity", "-0", "0.1", "3.4028235e38", "1e-45",
                         *[f"{bits:.9g}"] * 6)

    def double(self):
        bits = struct.unpack("<d", struct.pack("<Q", self.rng.getrandbits(64)))[0]
        return self.pick("NaN", "Infinity", "-Infinity", "-0", "0.1", "5e-324", "1.7976931348623157e308", "1e21",
                         "123456789012345680", *[repr(bits)] * 8)

    def finite(self):
        return repr(self.rng.choice([0.0, 1.5, -2.25, 1e10, -1e-7, self.rng.uniform(-1e6, 1e6)]))

    def coordinate(self):
        return self.rng.choice(["NaN", "Infinity", "-Infinity", "-0", self.finite(), self.finite(), self.finite()])

    def days(self, last):
        rng = self.rng
        return rng.choice([rng.randrange(-2451545, last), rng.randrange(-800000, 3000000), rng.randrange(0, 10000)])

    def date(self):
        return self.rng.choice([self.pick("infinity", "-infinity", "0044-03-15 BC", "5874897-12-31", "4713-01-01 BC"),
                                f"(date '2000-01-01' + {self.days(2145031948)})"])

    def timestamp(self, zone=""):
        far = f"(timestamp{zone} '2000-01-01{'+00' if zone else ''}' + interval '{self.days(106741034)} days'" \
              f" + interval '{self.rng.choice([0, 1, 100000, self.rng.randrange(86400000000)]) / 1e6:.6f} seconds')"
        return self.rng.choice([self.pick("infinity", "-infinity", "294276-12-31 23:59:59.999999",
                                          "4713-01-01 00:00:00 BC", "2020-01-01 00:00:00.1"), far, far])

    def timestamptz(self):
        return self.timestamp("tz")

    def time(self):
        r = self.rng
        return self.pick("24:00:00", "00:00:00", f"{r.randrange(24)}:{r.randrange(60)}:{r.randrange(60)}.{r.randrange(10**6)}")

    def timetz(self):
        r = self.rng
        return self.pick("24:00:00+15:59:59", "12:00:00-04:30",
                         f"{r.randrange(24)}:{r.randrange(60)}:{r.randrange(60)}{r.choice('+-')}{r.randrange(15)}:{r.randrange(60):02}")

    def interval(self):
        r = self.rng
        infinity = ["infinity", "-infinity"] if self.version >= 170000 else []
        return self.pick("0", *infinity, "-178000000 years", "1 year 2 mons -3 days +04:05:06.789",
                         *[f"{r.randrange(-999, 999)} mons {r.randrange(-99, 99)} days {r.uniform(-10**6, 10**6):.6f} seconds"] * 3)

    def bytes(self):
        return "'\\x" + bytes(self.rng.randrange(256) for _ in range(self.rng.randrange(9))).hex() + "'"

    def uuid(self):
        return quote("%032X" % self.rng.getrandbits(128))

    def json_text(self, is_binary, depth=0):
        rng = self.rng
        space = rng.choice(["", "", " ", "\n  ", "\t"])
        if depth < 3 and rng.random() < 0.5:
            inner = [self.json_text(is_binary, depth + 1) for _ in range(rng.randrange(4))]
            if rng.random() < 0.5:
                return "[" + space + ("," + space).join(inner) + space + "]"
            keys = [rng.choice(['"a"', '"b"', '"a\\"b"', '""', '"ü"', '"\\u00e9\\n"']) for _ in inner]
            return "{" + space + ",".join(f"{k}{space}:{v}" for k, v in zip(keys, inner)) + space + "}"
        scalars = ["null", "true", "false", '""', '"x,y"', '"\\"\\\\\\/\\b\\f\\n\\r\\t"', '"\\u2028 🎉"', "-0", "1.50",
                   "12345678901234567890.12345678901234567890", "1e40", "-1.5E-10", "0.00"]
        return space + rng.choice(scalars if is_binary else scalars + ["1e400", '"\\u0000"', '"\\ud83c"']) + space

    def json(self):
        return quote(self.json_text(False))

    def jsonb(self):
        return quote(self.json_text(True))

    def xml(self):
        return self.pick("<a/>", "<a b=\"c &amp; d\">text</a>", "plain", "<!-- x --><a>ü🎉\n</a>", "")

    def bits(self, n=None):
        n = self.rng.randrange(20) if n is None else n
        return quote("".join(self.rng.choice("01") for _ in range(n)))

    def inet(self):
        r = self.rng
        return self.pick(f"{r.randrange(256)}.{r.randrange(256)}.1.2/{r.randrange(33)}", "10.0.0.1", "::1",
                         "::ffff:1.2.3.4", f"2001:db8::{r.randrange(65536):x}/{r.randrange(129)}")

    def cidr(self):
        return self.pick("10.0.0.0/8", "0.0.0.0/0", "2001:db8::/32", "192.168.1.7")

    def mac(self, n):
        return quote(":".join("%02x" % self.rng.randrange(256) for _ in range(n)))

    def points(self, n):
        return ",".join(f"({self.finite()},{self.finite()})" for _ in range(n))

    def point(self):
        return quote(f"({self.coordinate()},{self.coordinate()})")

    def line(self):
        return quote(f"{{{self.finite()},1.5,{self.finite()}}}")

    def path(self):
        return quote(self.rng.choice(["[%s]", "(%s)"]) % self.points(self.rng.randrange(1, 4)))

    def circle(self):
        return quote(f"<({self.finite()},{self.finite()}),{abs(float(self.finite()))}>")

    def tsvector(self):
        return self.rng.choice([f"to_tsvector('simple', {self.text()})",
                                self.pick("'a b':1A,2 'c''d' '\\\\e'", "", "cat:3A fat rat:1,2")])

    def tsquery(self):
        return self.pick("fat & (rat | !cat:A)", "'a b' <-> 'c''d'", "x:*", "")

    def vector(self):
        return quote(" ".join(str(self.rng.randrange(32768)) for _ in range(self.rng.randrange(4))))

    def hstore(self):
        pairs = [(self.string(), "NULL" if self.rng.random() < 0.2 else self.text())
                 for _ in range(self.rng.randrange(5))]
        if not pairs:
            return "''"
        return (f"hstore(ARRAY[{','.join(quote(k) for k, _ in pairs)}]::text[],"
                f" ARRAY[{','.join(v for _, v in pairs)}]::text[])")

    def ltree(self):
        return quote(".".join(self.rng.choice(["Top", "a_b", "x1", "Ü"]) for _ in range(self.rng.randrange(1, 5))))

    def cube(self):
        return quote(f"({self.finite()},{self.finite()}),({self.finite()},{self.finite()})")

    def base(self):
        """{type: a function of no arguments}"""
        out = {
            "bool": lambda: self.pick("t", "f"),
            "int2": lambda: self.integer(16), "int4": lambda: self.integer(32), "int8": lambda: self.integer(64),
            "float4": self.real, "float8": self.double, "numeric": self.numeric,
            "numeric(12,3)": lambda: self.pick("NaN", "0.00", "-999999999.999", self.finite()),
            "money": lambda: self.pick("-92233720368547758.08", "92233720368547758.07", "0", "-0.01", "1234567.8"),
            "text": self.text, "varchar": self.text, "bpchar": self.text, "name": lambda: f"left({self.text()}, 40)",
            "varchar(5)": lambda: f"left({self.text()}, 5)", "char(5)": lambda: f"left({self.text()}, 5)",
            '"char"': lambda: self.pick("x", "", '"', "\\", ",", "(", " "),
            "bytea": self.bytes, "uuid": self.uuid, "json": self.json, "jsonb": self.jsonb, "xml": self.xml,
            "jsonpath": lambda: self.pick('$."a b"[*] ? (@.x > 1.50)', "$", "lax $.a"),
            "date": self.date, "timestamp": self.timestamp, "timestamptz": self.timestamptz,
            "timestamp(0)": self.timestamp, "time": self.time, "timetz": self.timetz, "interval": self.interval,
            "bit(5)": lambda: self.bits(5), "bit": lambda: self.bits(1), "varbit": self.bits,
            "inet": self.inet, "cidr": self.cidr, "macaddr": lambda: self.mac(6), "macaddr8": lambda: self.mac(8),
            "point": self.point, "lseg": lambda: quote(f"[{self.points(2)}]"), "box": lambda: quote(self.points(2)),
            "line": self.line, "path": self.path, "polygon": lambda: quote(f"({self.points(3)})"),
            "circle": self.circle, "tsvector": self.tsvector, "tsquery": self.tsquery,
            "oid": lambda: self.unsigned(32), "xid": lambda: self.unsigned(32), "cid": lambda: self.unsigned(32),
            "xid8": lambda: self.unsigned(64), "tid": lambda: self.pick("(0,1)", "(4294967295,65535)"),
            "pg_lsn": lambda: self.pick("0/0", "FFFFFFFF/FFFFFFFF", "16/B374D848"),
            "pg_snapshot": lambda: self.pick("10:20:10,14,15", "1:1:"),
            "txid_snapshot": lambda: self.pick("10:20:10,14,15", "1:1:"),
            "refcursor": self.text, "aclitem": lambda: self.pick("=r/postgres", "walpost=arwd*/postgres"),
            "int2vector": self.vector, "oidvector": self.vector,
            "regclass": lambda: self.pick("pg_class", "history.change", "4294967295"),
            "regtype": lambda: self.pick("int4", "timestamp with time zone", "_text", '"char"'),
            "regproc": lambda: self.pick("now", "4294967295"), "regprocedure": lambda: self.pick("lower(text)", "now()"),
            "regoper": lambda: self.pick("||/", "0"), "regoperator": lambda: self.pick("+(int4,int4)", "0"),
            "regrole": lambda: self.pick("walpost", "postgres"), "regnamespace": lambda: self.pick("public", "history"),
            "regconfig": lambda: self.pick("simple", "english"), "regdictionary": lambda: self.pick("simple"),
            "regcollation": lambda: self.pick('"C"', '"POSIX"'),
        }
        return out

    def contrib(self):
        """{extension: {type: a function of no arguments}}"""
        return {
            "hstore": {"hstore": self.hstore},
            "citext": {"citext": self.text},
            "ltree": {"ltree": self.ltree, "lquery": lambda: self.pick("*.a|b@*.c{1,2}", "Top.*"),
                      "ltxtquery": lambda: self.pick("a & !b@* | c%")},
            "cube": {"cube": self.cube},
            "seg": {"seg": lambda: self.pick("1.50 .. 2.5", "<3", "~5.0", "1e3..", "7(+-)1")},
            "isn": {"ean13": lambda: self.pick("9780393040029", "0220356483481"), "isbn": lambda: self.pick("9780393040029"),
                    "isbn13": lambda: self.pick("9780393040029"), "ismn": lambda: self.pick("979-0-060-11561-5"),
                    "issn": lambda: self.pick("1436-4522"), "upc": lambda: self.pick("220356483481")},
            "lo": {"lo": lambda: self.unsigned(32)},
            "intarray": {"query_int": lambda: self.pick("1&(2|!3)", "5")},
            "earthdistance": {"earth": lambda: "ll_to_earth(52.5, 13.4)"},
        }


class Type:
    """A type of the database: its SQL name, how a value is made, and what it was made of."""

    def __init__(self, sql, value, kind="base", parts=()):
        self.sql, self._value, self.kind, self.parts = sql, value, kind, parts

    def value(self, rng, nulls=0.15):
        if rng.random() < nulls:
            return f"NULL::{self.sql}"
        return f"({self._value()})::{self.sql}"

    def depth(self):
        return 1 + max((p.depth() for p in self.parts), default=0)


# In which btree order makes ranges; text's bounds are quoted in the most ways.
SUBTYPES = ["int4", "int8", "numeric", "float8", "text", "timestamp", "timestamptz", "date", "uuid", "inet"]


class Universe:
    """Random types over base ones.  `ddl` is what makes them, in order."""

    def __init__(self, rng, base, version):
        self.rng, self.version = rng, version
        self.base = [Type(sql, value) for sql, value in base.items()]
        self.types = list(self.base)
        self.ddl = []

    def new_name(self):
        odd = self.rng.choice(["", " x", '"', "ü", ".", ",", "Up"])
        return name(f"t{len(self.ddl)}{odd}")

    def array(self, elem):
        rng = self.rng
        sql = elem.sql + "[]"

        def value():
            n = rng.choice([0, 1, 1, 2, 3])
            if n == 0:
                return "'{}'"
            dims = rng.choice([1, 1, 1, 2, 3]) if elem.kind != "array" else 1

            def make(d):
                if d == 0:
                    return elem.value(rng, 0.2)
                return "ARRAY[" + ",".join(make(d - 1) for _ in range(n)) + "]"
            text = make(dims) + "::" + sql
            if rng.random() < 0.2:
                low = rng.randrange(-3, 4)
                return f"{quote(f'[{low}:{low + n - 1}]' * dims + '=')} || ({text})::text"
            return text
        return Type(sql, value, "array", [elem])

    def domain(self, of):
        sql = self.new_name()
        self.ddl.append(f"CREATE DOMAIN {sql} AS {of.sql}")
        return Type(sql, lambda: of.value(self.rng), "domain", [of])

    def composite(self, parts):
        sql = self.new_name()
        names = [name(f"a{i}" + self.rng.choice(["", '"', " ü", "\\", "\n"])) for i in range(len(parts))]
        attributes = [f"{n} {p.sql}" for n, p in zip(names, parts)]
        gone = self.rng.random() < 0.3
        if gone:
            attributes.insert(self.rng.randrange(len(attributes) + 1), "gone text")
        self.ddl.append(f"CREATE TYPE {sql} AS ({', '.join(attributes)})")
        if gone:
            self.ddl.append(f"ALTER TYPE {sql} DROP ATTRIBUTE gone")
        return Type(sql, lambda: "ROW(" + ",".join(p.value(self.rng) for p in parts) + ")", "composite", parts)

    def enum(self):
        sql = self.new_name()
        labels = list({self.rng.choice(STRINGS)[:20] or "plain" for _ in range(5)})
        self.ddl.append(f"CREATE TYPE {sql} AS ENUM ({', '.join(quote(x) for x in labels)})")
        return Type(sql, lambda: quote(self.rng.choice(labels)), "enum")

    def bounds(self, sql, sub):
        a, b = sub.value(self.rng, 0.2), sub.value(self.rng, 0.2)
        # Bounds of discrete types are brought to [) by adding one, which the last value does not allow.
        marks = "[)" if sub.sql in ("int4", "int8", "date") else self.rng.choice(["[]", "[)", "(]", "()"])
        return f"{sql}(least({a}, {b}), greatest({a}, {b}), '{marks}')"

    def ranges(self, sql, multi, sub):
        """A range type and its multirange."""
        out = [Type(sql, lambda: self.rng.choice(["'empty'", self.bounds(sql, sub), self.bounds(sql, sub)]), "range")]
        if self.version >= 140000:
            out.append(Type(multi, lambda: f"{multi}({', '.join(self.bounds(sql, sub) for _ in range(self.rng.randrange(4)))})",
                            "multirange"))
        return out

    def builtin_ranges(self):
        by_name = {t.sql: t for t in self.base}
        for short, sub in (("int4", "int4"), ("int8", "int8"), ("num", "numeric"), ("ts", "timestamp"),
                           ("tstz", "timestamptz"), ("date", "date")):
            self.types += self.ranges(short + "range", short + "multirange", by_name[sub])

    def new_range(self):
        sql, sub = self.new_name(), self.rng.choice([t for t in self.base if t.sql in SUBTYPES])
        multi = name("m" + sql[1:-1].replace('""', '"'))
        more = f", multirange_type_name = {multi}" if self.version >= 140000 else ""
        self.ddl.append(f"CREATE TYPE {sql} AS RANGE (subtype = {sub.sql}{more})")
        return self.ranges(sql, multi, sub)

    def some(self):
        """A type to build on; the deeper it is, the rarer."""
        return self.rng.choice([self.rng.choice(self.types), self.rng.choice(self.base)]
                               + [t for t in self.types[-12:] if t.depth() < 6])

    def grow(self, n):
        """n more types of random kinds."""
        for _ in range(n):
            kind = self.rng.choices(["array", "domain", "composite", "enum", "range"], [4, 3, 6, 1, 1])[0]
            if kind == "array":
                of = self.some()
                while of.kind == "array":
                    of = of.parts[0]
                self.types.append(self.array(of))
            elif kind == "domain":
                self.types.append(self.domain(self.some()))
            elif kind == "composite":
                self.types.append(self.composite([self.some() for _ in range(self.rng.randrange(1, 5))]))
            elif kind == "enum":
                self.types.append(self.enum())
            else:
                self.types += self.new_range()


def seeded(seed):
    return random.Random(seed)
