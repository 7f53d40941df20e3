package value

// builtin is a type of pg_type.dat: its oid, its array's oid (0: it has none) and
// its rule. These oids are the same in every Postgres, for ever.
type builtin struct {
	oid, array uint32
	kind       kind
}

// builtins returns the shapes of the types that need no look-up. It holds base
// types and ranges of Postgres 14 to 18; what is missing here, such as the types
// of a later version, is found in pg_type like any other.
func builtins(o Options) map[uint32]*shape {
	int8Kind := kindInt
	if o.Int8AsString {
		int8Kind = kindText
	}
	list := append(texts(),
		builtin{16, 1000, kindBool},
		builtin{17, 1001, kindBytea},
		builtin{20, 1016, int8Kind},
		builtin{21, 1005, kindInt},
		builtin{23, 1007, kindInt},
		builtin{114, 199, kindJSON},
		builtin{3802, 3807, kindJSON},
		builtin{700, 1021, kindFloat},
		builtin{701, 1022, kindFloat},
		builtin{1114, 1115, kindTimestamp},
		builtin{1184, 1185, kindTimestampTZ},
	)
	shapes := make(map[uint32]*shape, 2*len(list))
	for _, b := range list {
		s := &shape{kind: b.kind}
		shapes[b.oid] = s
		if b.array == 0 {
			continue
		}
		array := &shape{kind: kindArray, elem: s, delim: ','}
		if b.oid == boxOID {
			array.delim = ';'
		}
		shapes[b.array] = array
	}
	return shapes
}

const boxOID = 603

// texts returns the built-in types that are written as Postgres' text.
func texts() []builtin { return append(plainTexts(), rangeTexts()...) }

func plainTexts() []builtin {
	return []builtin{
		{18, 1002, kindText},   // char
		{19, 1003, kindText},   // name
		{22, 1006, kindText},   // int2vector
		{24, 1008, kindText},   // regproc
		{25, 1009, kindText},   // text
		{26, 1028, kindText},   // oid
		{27, 1010, kindText},   // tid
		{28, 1011, kindText},   // xid
		{29, 1012, kindText},   // cid
		{30, 1013, kindText},   // oidvector
		{142, 143, kindText},   // xml
		{194, 0, kindText},     // pg_node_tree
		{600, 1017, kindText},  // point
		{601, 1018, kindText},  // lseg
		{602, 1019, kindText},  // path
		{603, 1020, kindText},  // box
		{604, 1027, kindText},  // polygon
		{628, 629, kindText},   // line
		{650, 651, kindText},   // cidr
		{718, 719, kindText},   // circle
		{774, 775, kindText},   // macaddr8
		{790, 791, kindText},   // money
		{829, 1040, kindText},  // macaddr
		{869, 1041, kindText},  // inet
		{1033, 1034, kindText}, // aclitem
		{1042, 1014, kindText}, // bpchar
		{1043, 1015, kindText}, // varchar
		{1082, 1182, kindText}, // date
		{1083, 1183, kindText}, // time
		{1186, 1187, kindText}, // interval
		{1266, 1270, kindText}, // timetz
		{1560, 1561, kindText}, // bit
		{1562, 1563, kindText}, // varbit
		{1700, 1231, kindText}, // numeric
		{1790, 2201, kindText}, // refcursor
		{2202, 2207, kindText}, // regprocedure
		{2203, 2208, kindText}, // regoper
		{2204, 2209, kindText}, // regoperator
		{2205, 2210, kindText}, // regclass
		{2206, 2211, kindText}, // regtype
		{2950, 2951, kindText}, // uuid
		{2275, 1263, kindText}, // cstring
		{2970, 2949, kindText}, // txid_snapshot
		{3220, 3221, kindText}, // pg_lsn
		{3361, 0, kindText},    // pg_ndistinct
		{3402, 0, kindText},    // pg_dependencies
		{3614, 3643, kindText}, // tsvector
		{3615, 3645, kindText}, // tsquery
		{3642, 3644, kindText}, // gtsvector
		{3734, 3735, kindText}, // regconfig
		{3769, 3770, kindText}, // regdictionary
	}
}

func rangeTexts() []builtin {
	return []builtin{
		{3904, 3905, kindText}, // int4range
		{3906, 3907, kindText}, // numrange
		{3908, 3909, kindText}, // tsrange
		{3910, 3911, kindText}, // tstzrange
		{3912, 3913, kindText}, // daterange
		{3926, 3927, kindText}, // int8range
		{4072, 4073, kindText}, // jsonpath
		{4089, 4090, kindText}, // regnamespace
		{4096, 4097, kindText}, // regrole
		{4191, 4192, kindText}, // regcollation
		{4451, 6150, kindText}, // int4multirange
		{4532, 6151, kindText}, // nummultirange
		{4533, 6152, kindText}, // tsmultirange
		{4534, 6153, kindText}, // tstzmultirange
		{4535, 6155, kindText}, // datemultirange
		{4536, 6157, kindText}, // int8multirange
		{4600, 0, kindText},    // pg_brin_bloom_summary
		{4601, 0, kindText},    // pg_brin_minmax_multi_summary
		{5017, 0, kindText},    // pg_mcv_list
		{5038, 5039, kindText}, // pg_snapshot
		{5069, 271, kindText},  // xid8
	}
}
