package hosting

import (
	"net/http"
	"path"
	"strings"
)

// mediaTypes are the kinds of files that sites are made of. The machine's own table is not asked: it
// differs from one to the next, calls .ts a video and .org a calendar.
var mediaTypes = map[string]string{
	".html": "text/html; charset=utf-8", ".htm": "text/html; charset=utf-8",
	".css": "text/css; charset=utf-8",
	".js":  "text/javascript; charset=utf-8", ".mjs": "text/javascript; charset=utf-8", ".cjs": "text/javascript; charset=utf-8",
	".ts": "text/plain; charset=utf-8", ".tsx": "text/plain; charset=utf-8", ".jsx": "text/plain; charset=utf-8",
	".json": "application/json", ".map": "application/json", ".jsonld": "application/ld+json",
	".webmanifest": "application/manifest+json", ".geojson": "application/geo+json",
	".txt": "text/plain; charset=utf-8", ".md": "text/markdown; charset=utf-8", ".csv": "text/csv; charset=utf-8",
	".vtt": "text/vtt; charset=utf-8", ".ics": "text/calendar; charset=utf-8",
	".yaml": "application/yaml", ".yml": "application/yaml",
	".xml": "application/xml", ".xhtml": "application/xhtml+xml", ".atom": "application/atom+xml", ".rss": "application/rss+xml",
	".svg": "image/svg+xml", ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif",
	".webp": "image/webp", ".avif": "image/avif", ".ico": "image/x-icon", ".bmp": "image/bmp", ".apng": "image/apng",
	".woff": "font/woff", ".woff2": "font/woff2", ".ttf": "font/ttf", ".otf": "font/otf",
	".mp4": "video/mp4", ".webm": "video/webm", ".mov": "video/quicktime", ".ogv": "video/ogg",
	".mp3": "audio/mpeg", ".ogg": "audio/ogg", ".wav": "audio/wav", ".m4a": "audio/mp4", ".flac": "audio/flac", ".opus": "audio/ogg",
	".wasm": "application/wasm", ".pdf": "application/pdf",
	".zip": "application/zip", ".gz": "application/gzip", ".tgz": "application/gzip", ".zst": "application/zstd", ".br": "application/octet-stream",
	".tar": "application/x-tar", ".bin": "application/octet-stream",
	".bz2": "application/x-bzip2", ".xz": "application/x-xz", ".7z": "application/x-7z-compressed", ".rar": "application/vnd.rar",
	".heic": "image/heic", ".heif": "image/heif", ".jxl": "image/jxl", ".tif": "image/tiff", ".tiff": "image/tiff", ".eot": "application/vnd.ms-fontobject",
	".m4v": "video/mp4", ".mkv": "video/matroska", ".avi": "video/x-msvideo", ".mpeg": "video/mpeg", ".m3u8": "application/vnd.apple.mpegurl",
	".aac": "audio/aac", ".weba": "audio/webm", ".oga": "audio/ogg", ".mid": "audio/midi", ".glb": "model/gltf-binary", ".gltf": "model/gltf+json",
	".jar": "application/java-archive", ".apk": "application/vnd.android.package-archive", ".exe": "application/octet-stream", ".dmg": "application/octet-stream",
	".epub": "application/epub+zip", ".rtf": "application/rtf", ".toml": "application/toml", ".ndjson": "application/x-ndjson",
	".doc": "application/msword", ".xls": "application/vnd.ms-excel", ".ppt": "application/vnd.ms-powerpoint",
	".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
	".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
	".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
	".odt":  "application/vnd.oasis.opendocument.text", ".ods": "application/vnd.oasis.opendocument.spreadsheet",
}

// sniffed is how much of a file http.DetectContentType reads.
const sniffed = 512

// byExtension is the media type that a name says, with a charset for text; empty if it says none.
func byExtension(name string) string { return mediaTypes[strings.ToLower(path.Ext(name))] }

// mediaType is the type of a file by its name, else by its first bytes.
func mediaType(name string, c *content) (string, error) {
	if t := byExtension(name); t != "" {
		return t, nil
	}
	head, err := c.head(sniffed)
	if err != nil {
		return "", err
	}
	return http.DetectContentType(head), nil
}

// compressible tells whether files of a type are worth compressing.
func compressible(mediaType string) bool {
	t, _, _ := strings.Cut(mediaType, ";")
	t = strings.ToLower(strings.TrimSpace(t))
	switch t {
	case "application/json", "application/javascript", "application/xml", "application/wasm", "application/yaml",
		"application/manifest+json", "application/x-javascript", "application/vnd.ms-fontobject",
		"font/ttf", "font/otf", "image/bmp", "image/x-icon":
		return true
	}
	return strings.HasPrefix(t, "text/") || strings.HasSuffix(t, "+json") || strings.HasSuffix(t, "+xml")
}
