package serve

import (
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"longtake/api"
)

// object is a JSON object.
type object = map[string]any

// openAPI describes routes as an OpenAPI 3.1 document. Schemas are read off the Go types.
func openAPI(routes []route) map[string]any {
	schemas := object{}
	paths := object{}
	for _, rt := range routes {
		item, ok := paths[rt.path].(object)
		if !ok {
			item = object{}
			paths[rt.path] = item
		}
		item[strings.ToLower(rt.method)] = operation(&rt, schemas)
	}
	for _, v := range []any{api.ErrorBody{}, api.FrameHeader{}, api.Notice{}, api.Control{}} {
		schema(reflect.TypeOf(v), schemas)
	}
	return object{
		"openapi": "3.1.0",
		"info": object{"title": "longtake", "version": "1",
			"description": "Endless video from autoregressive diffusion models. Errors are {\"error\": {\"type\", \"message\"}}. " +
				"Frames on the WebSocket are 4 bytes with the length of a header, least significant first, the header (FrameHeader) as JSON, " +
				"and an image; all other messages are JSON texts: Control from the client, Notice to it.",
			"license": object{"name": "Apache-2.0", "identifier": "Apache-2.0"}},
		"paths": paths,
		"components": object{"schemas": schemas,
			"securitySchemes": object{"token": object{"type": "http", "scheme": "bearer"}, "cookie": object{"type": "apiKey", "in": "cookie", "name": cookieName}}},
	}
}

var parameter = regexp.MustCompile(`\{(\w+)\}`)

func operation(rt *route, schemas object) object {
	op := object{"summary": rt.about, "operationId": operationID(rt)}
	var parameters []any
	for _, m := range parameter.FindAllStringSubmatch(rt.path, -1) {
		parameters = append(parameters, object{"name": m[1], "in": "path", "required": true, "schema": object{"type": "string"}})
	}
	for _, name := range rt.query {
		parameters = append(parameters, object{"name": name, "in": "query", "required": name == "protocol_version", "schema": object{"type": "string"}})
	}
	if parameters != nil {
		op["parameters"] = parameters
	}
	if rt.in != nil {
		op["requestBody"] = object{"content": content(rt.in, rt.inType, schemas)}
	}
	success := object{"description": rt.about}
	if rt.out != nil || rt.outType != "" {
		success["content"] = content(rt.out, rt.outType, schemas)
	}
	op["responses"] = object{strconv.Itoa(rt.status): success,
		"default": object{"description": "What went wrong.", "content": content(api.ErrorBody{}, "", schemas)}}
	if !rt.open {
		op["security"] = []any{object{"token": []any{}}, object{"cookie": []any{}}}
	}
	return op
}

func operationID(rt *route) string {
	words := strings.FieldsFunc(rt.path, func(r rune) bool { return strings.ContainsRune("/{}.", r) })
	return strings.ToLower(rt.method) + "_" + strings.Join(words, "_")
}

func content(v any, kind string, schemas object) object {
	if kind != "" {
		return object{kind: object{}}
	}
	return object{"application/json": object{"schema": schema(reflect.TypeOf(v), schemas)}}
}

// schema describes a type, and adds the structs it is made of to schemas.
func schema(t reflect.Type, schemas object) object {
	if t == reflect.TypeFor[api.Number]() {
		return object{"type": []any{"number", "string"}}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return schema(t.Elem(), schemas)
	case reflect.String:
		return object{"type": "string"}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Int, reflect.Int64:
		return object{"type": "integer"}
	case reflect.Uint64:
		return object{"type": "integer", "minimum": 0}
	case reflect.Float32, reflect.Float64:
		return object{"type": "number"}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": schema(t.Elem(), schemas)}
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return object{"type": "string", "contentEncoding": "base64"}
		}
		return object{"type": "array", "items": schema(t.Elem(), schemas)}
	case reflect.Struct:
		if _, known := schemas[t.Name()]; !known {
			schemas[t.Name()] = nil // breaks circles
			schemas[t.Name()] = properties(t, schemas)
		}
		return object{"$ref": "#/components/schemas/" + t.Name()}
	}
	panic("serve: no schema for " + t.String())
}

func properties(t reflect.Type, schemas object) object {
	fields, required := object{}, []any{}
	for i := range t.NumField() {
		name, options, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		fields[name] = schema(t.Field(i).Type, schemas)
		if !strings.Contains(options, "omitempty") {
			required = append(required, name)
		}
	}
	o := object{"type": "object", "properties": fields, "additionalProperties": false}
	if len(required) > 0 {
		o["required"] = required
	}
	return o
}
