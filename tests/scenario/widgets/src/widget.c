#include "widget.h"

#include <string.h>

int widget_init(struct widget *widget, const char *name, unsigned price_cents)
{
	size_t length = strlen(name);

	if (length == 0 || length > WIDGET_NAME_MAX)
		return -1;
	memcpy(widget->name, name, length + 1);
	widget->price_cents = price_cents;
	return 0;
}
